"""A copy of the digits model on servers, and the command with a cache of its own."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from weightskit.command import Command
from weightskit.servers import REPOSITORY, Server, serving

from disagfusion.weights.directory import DIGITS


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits as a repository has them: with other forms of the weights beside."""
    directory = tmp_path_factory.mktemp("repository") / "digits"
    shutil.copytree(DIGITS, directory)
    (directory / "flow.png").write_bytes(b"a picture")
    for component in ("transformer", "vae"):
        stem = directory / component / "diffusion_pytorch_model"
        stem.with_suffix(".bin").write_bytes(b"pickled" * 9000)
        (directory / component / "diffusion_pytorch_model.fp16.safetensors").write_bytes(b"16")
    return directory


@pytest.fixture
def server(digits: Path) -> Iterator[Server]:
    with serving(digits) as served:
        yield served


@pytest.fixture
def fetch(tmp_path: Path, server: Server) -> Command:
    log = tmp_path / "termination-log"
    log.touch()
    return Command(tmp_path / "cache", log, {"HF_ENDPOINT": server.url})


@pytest.fixture
def hub() -> str:
    return f"hub:{REPOSITORY}"
