"""Which service a device gets, and what an emulated one refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from emulationkit import PROFILE
from pydantic import ValidationError

from disagfusion.emulation.choice import make_service
from disagfusion.emulation.service import EmulatedService
from disagfusion.errors import InvalidArgumentError
from disagfusion.pipeline.stages import Stage
from disagfusion.stage.app import StageService
from disagfusion.stage.devices import emulated_device, emulated_pool, is_emulated
from disagfusion.stage.settings import StageSettings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "p.yaml"
    path.write_text(json.dumps(PROFILE))
    return path


def settings(file: Path, **changes: Any) -> StageSettings:
    given = {"device": "emulated:small", "profile": file, "pipeline": "emulated-p", **changes}
    return StageSettings(**given)


def test_names_of_devices() -> None:
    assert emulated_pool(emulated_device("a10")) == "a10"
    assert (emulated_pool("cuda:0"), is_emulated("cuda:0")) == ("", False)
    assert is_emulated("emulated:")


def test_the_device_decides(file: Path) -> None:
    emulated = make_service(Stage.DIT, "m:E", settings(file))
    assert isinstance(emulated, EmulatedService)
    real = make_service(Stage.DIT, "m:E", StageSettings(model="m", device="cpu"))
    assert type(real) is StageService


@pytest.mark.parametrize(
    ("changes", "field", "message"),
    [
        ({"pipeline": "flux"}, "pipeline", "begins with 'emulated'"),
        ({"profile": None}, "profile", "emulated:small needs one"),
        ({"profile": Path("/no/such")}, "profile", "cannot read /no/such"),
        ({"device": "emulated:"}, "device", "no pool ''"),
        ({"device": "emulated:b200"}, "device", "emulated:small or emulated:large"),
    ],
)
def test_what_cannot_be_emulated_is_named(
    file: Path, changes: dict[str, Any], field: str, message: str
) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        make_service(Stage.DIT, "m:E", settings(file, **changes))
    assert refused.value.field == field
    assert message in refused.value.message


def test_a_profile_needs_the_three_stages(file: Path) -> None:
    stages = {"encoder": PROFILE["stages"]["encoder"]}
    file.write_text(json.dumps({**PROFILE, "stages": stages}))
    with pytest.raises(InvalidArgumentError, match="no stage dit and no stage decoder"):
        make_service(Stage.ENCODER, "m:E", settings(file))
    file.write_text("pools: [")
    with pytest.raises(InvalidArgumentError, match=r"p\.yaml"):
        make_service(Stage.ENCODER, "m:E", settings(file))


def test_an_emulated_monoliths_encoder_runs_on_any_pool(file: Path) -> None:
    # The profile does not say how fast a decoder is there.
    chosen = settings(file, device="emulated:large")
    with pytest.raises(InvalidArgumentError, match="decoder is on large"):
        make_service(Stage.DECODER, "m:E", chosen)
    passes_on = chosen.model_copy(update={"monolith": "resident"})
    assert make_service(Stage.DECODER, "m:E", passes_on)
    with pytest.raises(InvalidArgumentError, match="decoder is on large"):
        make_service(Stage.DIT, "m:E", passes_on)


@pytest.mark.parametrize(
    "wrong",
    [
        {"time_scale": 0},
        {"time_scale": "nan"},
        {"time_noise": 1},
        {"monolith": "huge"},
        {"load_ahead": "sometimes"},
    ],
)
def test_numbers_that_are_absurd(file: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        settings(file, **wrong)


def test_the_pool_is_the_devices(file: Path) -> None:
    service = EmulatedService(Stage.DIT, settings(file))
    assert service._settings.pool == "small"
    named = EmulatedService(Stage.DIT, settings(file, pool="mine"))
    assert named._settings.pool == "mine"


@pytest.mark.parametrize(
    ("device", "chosen", "expected"),
    [
        ("cpu", "auto", True),
        ("cpu", "off", False),
        ("cuda:0", "auto", False),
        ("cuda:0", "on", True),
        ("emulated:small", "auto", True),
        ("emulated:small", "off", False),
        ("emulated:large", "auto", False),
        ("emulated:large", "on", True),
    ],
)
def test_where_the_next_stages_weights_are_loaded_ahead(
    file: Path, device: str, chosen: str, expected: bool
) -> None:
    pools = PROFILE["pools"]
    small = {**pools["small"], "load_ahead": True}
    file.write_text(json.dumps({**PROFILE, "pools": {**pools, "small": small}}))
    given = settings(file, device=device, model="m", load_ahead=chosen)
    assert make_service(Stage.DIT, "m:E", given)._loads_ahead() is expected


def test_engines_are_forked_without_torch() -> None:
    program = (
        "import json, sys\nfrom disagfusion.stage import engine\nengine.preload()\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"DISAGFUSION_PRELOAD": "emulated", "DISAGFUSION_MODEL": "x"},
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    modules = {name.split(".")[0] for name in json.loads(done.stdout)}
    assert "PIL" in modules
    heavy = {"torch", "diffusers", "transformers", "numpy", "grpc", "ucxx", "sqlalchemy"}
    assert not heavy & modules
