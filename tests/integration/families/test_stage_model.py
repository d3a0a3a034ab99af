"""One stage of a model: loading, options, errors, and the traps on the way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from familykit.client import Workers

pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize(
    ("check", "model"),
    [
        ("cancelling", "flux"),
        ("requests_are_independent", "sd3"),
        ("blocks_of_diffusers_stay_untouched", "flux"),
        ("ghosts", "flux"),
        ("options", "flux"),
        ("bad_requests", "flux"),
        ("guiders", "z_image"),
    ],
)
def test_in_a_process_of_its_own(check: str, model: str, workers: Workers, models: Path) -> None:
    workers.call("check", name=check, directory=_made(workers, models, model))


@pytest.mark.parametrize("check", ["damage", "spec"])
def test_files(check: str, workers: Workers, models: Path, tmp_path: Path) -> None:
    model = _made(workers, models, "flux")
    workers.call("check", name=check, directory=model, scratch=str(tmp_path))


def _made(workers: Workers, models: Path, model: str) -> str:
    directory = models / model
    if not directory.exists():
        workers.call("make_model", model=model, directory=str(directory))
    return str(directory)
