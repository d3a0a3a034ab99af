"""What `LocalRuntime` refuses before it starts anything, and how it sets processes up."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from disagfusion.errors import FailedPreconditionError, InvalidArgumentError
from disagfusion.local import LocalRuntime, directories
from disagfusion.local.deployment import Deployment, default_threads


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    (directory / "model_index.json").write_text("{}")
    return directory


def test_a_model_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="there is no"):
        LocalRuntime(tmp_path / "nothing")
    with pytest.raises(InvalidArgumentError, match="no diffusers model"):
        LocalRuntime(tmp_path)
    LocalRuntime("owner/name")


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("dits", {"dits": 0}),
        ("encoders", {"encoders": -1}),
        ("threads", {"threads": 0}),
        ("threads", {"threads": {"dit": 0}}),
        ("threads", {"threads": {"vae": 1}}),
    ],
)
def test_numbers_that_are_absurd(model: Path, field: str, changes: dict[str, int]) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        LocalRuntime(model, **changes)  # type: ignore[arg-type]
    assert caught.value.field == field


def test_a_port_in_use_is_one_line(model: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(FailedPreconditionError, match=f"^{address}: in use$"):
            LocalRuntime(model, listen=address).start()


@pytest.mark.parametrize("listen", ["", "7420", "host:", "127.0.0.1:99999", "127.0.0.1:-1"])
def test_an_address_that_is_none(model: Path, listen: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        LocalRuntime(model, listen=listen).start()
    assert caught.value.field == "listen"


def test_a_data_directory_has_one_owner(model: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    lock = directories.try_lock(data / "lock", create=True)
    assert lock is not None
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(FailedPreconditionError, match="in use by another runtime"):
        LocalRuntime(model, data_dir=data).start()
    assert set(os.listdir("/proc/self/fd")) == before
    os.close(lock)


def test_asking_before_starting(model: Path) -> None:
    runtime = LocalRuntime(model)
    with pytest.raises(FailedPreconditionError, match="not been started"):
        runtime.status()
    runtime.stop()


def deployment(directory: Path, **changes: Any) -> Deployment:
    values: dict[str, Any] = {
        "model": "/m",
        "pipeline": "p",
        "replicas": {"encoder": 1, "dit": 2, "decoder": 1},
        "threads": {"encoder": 1, "dit": 3, "decoder": 1},
        "transport": "tcp",
        "listen": "127.0.0.1:0",
        "run_directory": directory,
        "data_directory": directory / "data",
    }
    return Deployment(**{**values, **changes})


def test_engines_can_be_forked_by_a_process_that_is_there_already(tmp_path: Path) -> None:
    specs = deployment(tmp_path, fork_server="/run/forks").processes()
    processes = {spec.name: spec for spec in specs}
    assert list(processes) == ["gateway", "encoder-0", "dit-0", "dit-1", "decoder-0"]
    assert processes["dit-0"].environment["DISAGFUSION_FORK_SERVER"] == "/run/forks"


def test_a_process_that_forks_engines_and_is_not_there(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = tmp_path / "gone.sock"
    monkeypatch.setenv("DISAGFUSION_FORK_SERVER", str(gone))
    with pytest.raises(FailedPreconditionError, match=f"DISAGFUSION_FORK_SERVER: .*{gone}"):
        LocalRuntime(model).start()


def test_what_the_processes_are_told(tmp_path: Path) -> None:
    specs = deployment(
        tmp_path,
        settings={"slots": "3"},
        environment={"dit-1": {"CUDA_VISIBLE_DEVICES": "1", "DISAGFUSION_SLOTS": "4"}},
    ).processes()
    processes = {spec.name: spec for spec in specs}
    assert list(processes) == ["forkserver", "gateway", "encoder-0", "dit-0", "dit-1", "decoder-0"]
    gateway = processes["gateway"].environment
    assert gateway["DISAGFUSION_WORKERS"].split(",")[2] == f"dit-1=unix:{tmp_path}/dit-1.sock"
    dit = processes["dit-1"].environment
    assert dit["DISAGFUSION_LISTEN"] == f"unix:{tmp_path}/dit-1.sock"
    assert dit["DISAGFUSION_THREADS"] == "3"
    assert (dit["DISAGFUSION_SLOTS"], dit["CUDA_VISIBLE_DEVICES"]) == ("4", "1")
    assert processes["dit-0"].environment["DISAGFUSION_SLOTS"] == "3"
    assert [spec.outlives for spec in processes.values()] == [True] + [False] * 5
    assert [bool(spec.pin_address) for spec in processes.values()] == [False, True] + [False] * 4


def test_threads_by_default() -> None:
    assert default_threads(1, 2) == {"encoder": 1, "dit": 1, "decoder": 1}
    assert default_threads(1, 16)["dit"] == 15
    assert default_threads(4, 16)["dit"] == 3
    assert default_threads(64, 16)["dit"] == 1
