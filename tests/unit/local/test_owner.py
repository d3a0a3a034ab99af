"""Whoever dies, however: nothing stays. Asked of /proc, not of the supervisor."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from disagfusion.errors import UnavailableError
from disagfusion.local import directories
from disagfusion.local.owner import SupervisorProcess
from disagfusion.local.plan import Plan, ProcessSpec, ProcessState

from .conftest import alive, eventually, marked

Dummy = Callable[..., ProcessSpec]
Own = Callable[[tuple[ProcessSpec, ...], str], subprocess.Popen[bytes]]

# What a user's program does, with dummies in the place of the services.
OWNER = """
import sys, threading, time
from pathlib import Path
from disagfusion.local import directories
from disagfusion.local.owner import SupervisorProcess
from disagfusion.local.plan import Plan
import dataclasses, os
parent = Path(sys.argv[1])
directory, lock = directories.create_private(parent)
plan = dataclasses.replace(
    Plan.from_json(sys.stdin.read()), parent=os.getpid(), remove=(str(directory),)
)
made = []
thread = threading.Thread(target=lambda: made.append(SupervisorProcess(plan, [lock])))
thread.start()
thread.join()
supervisor = made[0]
supervisor.ask("wait", 20.0)
print(supervisor.process.pid, directory, flush=True)
ENDING
"""

ENDINGS = {
    "orderly": "supervisor.end(10)",
    "return": "pass",
    "exception": "raise ValueError('the program is wrong')",
    "sys.exit": "sys.exit(4)",
    "os._exit": "os._exit(5)",
    "wait": "time.sleep(1000)",
}


@pytest.fixture
def specs(dummy: Dummy) -> tuple[ProcessSpec, ...]:
    deaf = "import signal; signal.signal(15, signal.SIG_IGN)\nwhile True: time.sleep(1)"
    tree = "import subprocess; subprocess.Popen(['sleep', '1000']); time.sleep(1000)"
    return (dummy("plain"), dummy("deaf", deaf), dummy("tree", tree))


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Own]:
    """Starts owners, and ends those that a failing test leaves."""
    owners = []

    def start(specs: tuple[ProcessSpec, ...], ending: str) -> subprocess.Popen[bytes]:
        plan = Plan(0, specs, str(tmp_path), stop_grace=0.3)
        code = OWNER.replace("ENDING", ENDINGS[ending])
        owner = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        owners.append(owner)
        assert owner.stdin is not None
        owner.stdin.write(plan.to_json().encode())
        owner.stdin.close()
        return owner

    yield start
    for owner in owners:
        owner.kill()
        close(owner)


def started(owner: subprocess.Popen[bytes]) -> tuple[int, Path]:
    assert owner.stdout is not None
    pid, directory = owner.stdout.readline().split()
    return int(pid), Path(directory.decode())


def close(owner: subprocess.Popen[bytes]) -> None:
    owner.wait(20)
    assert owner.stdout is not None
    assert owner.stderr is not None
    owner.stdout.close()
    owner.stderr.close()


@pytest.mark.parametrize("ending", [name for name in ENDINGS if name != "wait"])
def test_an_owner_that_ends_leaves_nothing(
    tmp_path: Path, own: Own, specs: tuple[ProcessSpec, ...], ending: str
) -> None:
    owner = own(specs, ending)
    supervisor, directory = started(owner)
    close(owner)
    eventually(lambda: not alive(supervisor))
    assert marked(str(tmp_path)) == []
    assert not directory.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_an_owner_that_is_killed_leaves_nothing(
    tmp_path: Path, own: Own, specs: tuple[ProcessSpec, ...], number: int
) -> None:
    owner = own(specs, "wait")
    supervisor, directory = started(owner)
    eventually(lambda: len(marked(str(tmp_path))) == 4)
    owner.send_signal(number)
    close(owner)
    eventually(lambda: not alive(supervisor))
    assert marked(str(tmp_path)) == []
    assert not directory.exists()


def test_a_supervisor_that_is_killed_takes_all_with_it(tmp_path: Path, dummy: Dummy) -> None:
    plan = Plan(os.getpid(), (dummy("a"), dummy("b")), str(tmp_path))
    supervisor = SupervisorProcess(plan)
    assert all(entry.state is ProcessState.READY for entry in supervisor.ask("wait", 20.0))
    supervisor.process.kill()
    eventually(lambda: marked(str(tmp_path)) == [])
    with pytest.raises(UnavailableError, match="has ended"):
        supervisor.ask("status")
    supervisor.end(10)


def test_both_killed_at_once_leave_a_directory_that_the_next_start_removes(
    tmp_path: Path, own: Own, dummy: Dummy
) -> None:
    owner = own((dummy("a"),), "wait")
    supervisor, directory = started(owner)
    os.kill(supervisor, signal.SIGSTOP)
    owner.kill()
    os.kill(supervisor, signal.SIGKILL)
    close(owner)
    eventually(lambda: marked(str(tmp_path)) == [])
    eventually(lambda: not alive(supervisor))
    assert directory.exists()
    assert directories.sweep(tmp_path) == [directory]


def test_an_owner_that_dies_while_everything_starts(tmp_path: Path, own: Own, dummy: Dummy) -> None:
    never = dummy("a", argv=(sys.executable, "-c", "import time; time.sleep(1000)"))
    owner = own((never,), "wait")
    eventually(lambda: marked(str(tmp_path)) != [])
    owner.kill()
    close(owner)
    eventually(lambda: marked(str(tmp_path)) == [])
    eventually(lambda: list(tmp_path.glob("disagfusion-*")) == [])


def test_a_fork_of_the_owner_does_not_keep_it_alive(tmp_path: Path, dummy: Dummy) -> None:
    supervisor = SupervisorProcess(Plan(os.getpid(), (dummy("a"),), str(tmp_path)))
    supervisor.ask("wait", 20.0)
    fork = os.fork()
    if fork == 0:
        signal.pause()
        os._exit(0)
    try:
        supervisor.end(10)
        assert supervisor.process.returncode == 0
        assert marked(str(tmp_path)) == []
    finally:
        os.kill(fork, signal.SIGKILL)
        os.waitpid(fork, 0)


def test_starting_and_ending_leaves_no_descriptor(tmp_path: Path, dummy: Dummy) -> None:
    def once() -> int:
        supervisor = SupervisorProcess(Plan(os.getpid(), (dummy("a"),), str(tmp_path)))
        supervisor.ask("wait", 20.0)
        supervisor.end(10)
        return len(os.listdir("/proc/self/fd"))

    assert once() == once() == once()
