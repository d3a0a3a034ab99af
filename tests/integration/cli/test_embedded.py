"""`disagfusion generate` and `serve` with an embedded system, and what is left of it afterwards."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(600)

COMMAND = (sys.executable, "-c", "from disagfusion.cli.app import main; main()")
SIZE = ("--height", "64", "--width", "64", "--steps", "4")
# Supervisor, fork server, gateway, three fronts.
PROCESSES = 6


def eventually(condition: Callable[[], bool], what: str, seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not happen: {what}"
        time.sleep(0.02)


class Program:
    """The command, and everything that descends from it, told apart by an environment variable."""

    def __init__(self, directory: Path, environment: Mapping[str, str]) -> None:
        # Not below the test's directory: a socket's path has room for 107 bytes.
        self.temporary = Path(tempfile.mkdtemp(prefix="disagfusion-test-"))
        self._mark = f"MARK={directory}".encode()
        self._environment = {
            **os.environ,
            **environment,
            "MARK": str(directory),
            "TMPDIR": str(self.temporary),
        }
        self._shm: set[str] = set()
        self._started: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*COMMAND, *arguments],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._started.append(process)
        return process

    def running(self) -> list[int]:
        """Processes that carry the mark; those that only wait to be collected do not count."""
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                marked = self._mark in (entry / "environ").read_bytes().split(b"\0")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if marked and state not in "ZX":
                found.append(int(entry.name))
        return found

    def note_shared_memory(self) -> None:
        """Remember the files of /dev/shm that the processes have mapped."""
        for pid in self.running():
            with contextlib.suppress(OSError):
                maps = Path(f"/proc/{pid}/maps").read_text()
                self._shm |= set(re.findall(r"/dev/shm/\S+", maps))

    def ours(self) -> list[Path]:
        """What is in the temporary directory but torch's cache of compiled code."""
        found = self.temporary.iterdir()
        return [path for path in found if not path.name.startswith("torchinductor_")]

    def nothing_is_left(self) -> None:
        """Assert that processes, sockets, directories and shared memory are gone."""
        eventually(lambda: self.running() == [], "all processes ended", 60)
        eventually(lambda: self.ours() == [], "temporary files removed", 60)
        assert [name for name in self._shm if Path(name).exists()] == []
        assert str(self.temporary) not in Path("/proc/net/unix").read_text()

    def close(self) -> None:
        for process in self._started:
            process.kill()
            process.communicate()
        shutil.rmtree(self.temporary)


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    made = Program(tmp_path, {})
    yield made
    made.close()


@pytest.fixture
def quick_program(tmp_path: Path, fork_server: str) -> Iterator[Program]:
    """One whose engines are forked by a process that is there already."""
    made = Program(tmp_path, {"DISAGFUSION_FORK_SERVER": fork_server})
    yield made
    made.close()


def until_running(program: Program, process: subprocess.Popen[str], count: int) -> None:
    """Wait until the command and its descendants are so many."""

    def there() -> bool:
        assert process.poll() is None, f"it ended with {process.returncode}"
        return len(program.running()) == count

    eventually(there, f"{count} processes run")


def test_a_picture_from_a_cold_start(program: Program, tmp_path: Path) -> None:
    file = tmp_path / "seven.png"
    process = program.start(
        "generate", "a handwritten seven in red", "-o", str(file), "--json", *SIZE
    )
    out, err = process.communicate(timeout=500)
    assert (process.returncode, err) == (0, "")
    answer = json.loads(out)
    assert answer["outputs"] == [str(file)]
    assert len({stage["pid"] for stage in answer["stages"]}) == 3
    assert file.read_bytes().startswith(b"\x89PNG")
    program.nothing_is_left()


@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9), (signal.SIGHUP, -1)],
)
def test_a_command_that_ends_while_it_starts(
    program: Program, tmp_path: Path, number: int, status: int
) -> None:
    process = program.start("generate", "x", "-o", str(tmp_path / "x.png"))
    until_running(program, process, PROCESSES + 1)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == status
    assert "Traceback" not in err
    program.nothing_is_left()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_command_that_ends_while_it_computes(
    program: Program, tmp_path: Path, number: int
) -> None:
    process = program.start(
        "generate", "x", "-o", str(tmp_path / "x.png"), *SIZE[:4], "--steps", "1000"
    )
    until_running(program, process, PROCESSES + 1 + 3)
    program.note_shared_memory()
    process.send_signal(number)
    process.communicate(timeout=60)
    program.nothing_is_left()


def test_a_supervisor_that_is_killed(program: Program, tmp_path: Path) -> None:
    process = program.start("generate", "x", "-o", str(tmp_path / "x.png"))
    until_running(program, process, PROCESSES + 1)
    supervisor = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert len(supervisor) == 1
    os.kill(int(supervisor[0]), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 5
    assert err == "error: the embedded runtime has ended\n"
    program.nothing_is_left()


def test_serving_until_interrupted(quick_program: Program, tmp_path: Path) -> None:
    process = quick_program.start(
        "serve", "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "d")
    )
    assert process.stdout is not None
    host, _, port = process.stdout.readline().strip().rpartition(":")
    socket.create_connection((host, int(port)), timeout=20).close()
    quick_program.note_shared_memory()
    second = quick_program.start("serve", "--listen", f"{host}:{port}")
    _, err = second.communicate(timeout=60)
    assert (second.returncode, err) == (4, f"error: {host}:{port}: in use\n")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "Traceback" not in err
    assert (tmp_path / "d" / "jobs.sqlite3").is_file()
    quick_program.nothing_is_left()


def test_a_damaged_model_is_one_line(quick_program: Program, tmp_path: Path) -> None:
    model = tmp_path / "damaged"
    (model / "transformer").mkdir(parents=True)
    (model / "model_index.json").write_text(
        '{"_class_name": "FluxPipeline", "transformer": ["diffusers", "FluxTransformer2DModel"]}'
    )
    (model / "transformer" / "config.json").write_text("{")
    process = quick_program.start(
        "generate", "x", "-o", str(tmp_path / "x.png"), "--model", str(model)
    )
    _, err = process.communicate(timeout=500)
    assert process.returncode == 2
    assert err.startswith("error: model: ")
    assert len(err.splitlines()) == 1
    quick_program.nothing_is_left()
