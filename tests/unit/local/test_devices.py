"""Which worker computes on what, and what is emulated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from disagfusion.errors import InvalidArgumentError
from disagfusion.local import LocalRuntime
from disagfusion.local.deployment import Deployment
from disagfusion.local.devices import resolve_devices, resolve_emulation
from disagfusion.scheduling.profile import Profile

REPLICAS = {"encoder": 1, "dit": 3, "decoder": 1}
PROFILE: dict[str, Any] = {
    "pools": {"a": {"accelerators": 1}, "b": {"accelerators": 1}},
    "stages": {
        "encoder": {"pools": {"a": {"seconds": 1}}},
        "dit": {"pools": {"a": {"seconds": 1}, "b": {"seconds": 1}}},
        "decoder": {"pools": {"a": {"seconds": 1}}},
    },
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "two.yaml"
    path.write_text(json.dumps(PROFILE))
    return path


def test_a_worker_goes_before_its_stage() -> None:
    assert resolve_devices(None, REPLICAS) == {}
    assert set(resolve_devices("cpu", REPLICAS).values()) == {"cpu"}
    given = {"dit": "cuda:0", "dit-2": "cuda:1"}
    assert resolve_devices(given, REPLICAS) == {
        "dit-0": "cuda:0", "dit-1": "cuda:0", "dit-2": "cuda:1",
    }  # fmt: skip


@pytest.mark.parametrize("name", ["vae", "dit-3", "", "dit-"])
def test_workers_that_are_none(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="there is no") as refused:
        resolve_devices({name: "cpu"}, REPLICAS)
    assert refused.value.field == "device"


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("profile", {"profile": None}),
        ("profile", {"profile": None, "device": None, "monolith": "resident"}),
        ("device", {"device": None}),
        ("device", {"device": {"dit": "emulated:a"}}),
        ("device", {"device": {"encoder": "cpu", "dit": "emulated:a", "decoder": "emulated:a"}}),
        ("device", {"device": "emulated:c"}),
        ("device", {"device": "emulated:b"}),
        ("time_scale", {"time_scale": 0.0}),
        ("time_scale", {"time_scale": float("nan")}),
        ("time_noise", {"time_noise": -0.1}),
        ("time_noise", {"time_noise": float("nan")}),
        ("monolith", {"monolith": "huge"}),
        ("model", {"model": "owner/name"}),
    ],
)
def test_what_cannot_be_emulated(file: Path, field: str, changes: dict[str, Any]) -> None:
    given: dict[str, Any] = {"profile": file, "device": "emulated:a", **changes}
    with pytest.raises(InvalidArgumentError) as refused:
        LocalRuntime(**given)
    assert refused.value.field == field


def test_a_file_that_is_no_profile(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("pools: {}\nstages: {}\n")
    with pytest.raises(InvalidArgumentError, match=r"wrong\.yaml: pools"):
        LocalRuntime(profile=wrong, device="emulated:a")
    with pytest.raises(InvalidArgumentError, match="cannot read"):
        LocalRuntime(profile=tmp_path / "none.yaml", device="emulated:a")


def test_what_emulated_processes_are_told(file: Path, tmp_path: Path) -> None:
    devices = resolve_devices(
        {"encoder": "emulated:a", "dit": "emulated:b", "dit-1": "emulated:a",
         "decoder": "emulated:a"},
        REPLICAS,
    )  # fmt: skip
    emulation = resolve_emulation(
        file, devices, REPLICAS, time_scale=0.1, time_noise=0.05, monolith=None
    )
    assert emulation is not None
    assert emulation.name == "emulated-two"
    deployment = Deployment(
        model="",
        pipeline=emulation.name,
        replicas=REPLICAS,
        threads=dict.fromkeys(REPLICAS, 1),
        transport="tcp",
        listen="127.0.0.1:0",
        run_directory=tmp_path,
        data_directory=tmp_path / "data",
        settings=emulation.settings(tmp_path),
        devices=devices,
    )
    told = {spec.name: spec.environment for spec in deployment.processes()}
    assert told["forkserver"]["DISAGFUSION_PRELOAD"] == "emulated"
    assert told["dit-0"]["DISAGFUSION_DEVICE"] == "emulated:b"
    dit = told["dit-1"]
    assert (dit["DISAGFUSION_DEVICE"], dit["DISAGFUSION_MONOLITH"]) == ("emulated:a", "")
    assert (dit["DISAGFUSION_TIME_SCALE"], dit["DISAGFUSION_TIME_NOISE"]) == ("0.1", "0.05")
    copy = Path(dit["DISAGFUSION_PROFILE"])
    assert Profile.model_validate_json(copy.read_text()) == Profile.model_validate(PROFILE)


def test_real_processes_are_told_nothing_of_it(tmp_path: Path) -> None:
    deployment = Deployment(
        model="m",
        pipeline="m",
        replicas=REPLICAS,
        threads=dict.fromkeys(REPLICAS, 1),
        transport="tcp",
        listen="127.0.0.1:0",
        run_directory=tmp_path,
        data_directory=tmp_path / "data",
        devices=resolve_devices({"dit-1": "cuda:1"}, REPLICAS),
    )
    told = {spec.name: spec.environment for spec in deployment.processes()}
    assert "DISAGFUSION_PRELOAD" not in told["forkserver"]
    assert told["dit-1"]["DISAGFUSION_DEVICE"] == "cuda:1"
    assert "DISAGFUSION_DEVICE" not in told["dit-0"]
    assert "DISAGFUSION_PROFILE" not in told["dit-0"]


def test_a_profile_that_is_no_file() -> None:
    runtime = LocalRuntime(profile=Profile.model_validate(PROFILE), device="emulated:a")
    assert runtime._pipeline == "emulated"
    runtime.stop()
