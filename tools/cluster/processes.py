"""Programs in the background, with records by which they, and no others, are ended again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tools.cluster.errors import ClusterError

PROC = Path("/proc")
_POLL_SECONDS = 0.1
_LOG_LINES = 15
# A variable in the environment of what was started.
MARK = "DISAGFUSION_CLUSTER"
_LAUNCH = Path(__file__).with_name("launch.py")


@dataclass(frozen=True)
class Record:
    """A program that was started.

    Attributes:
        name: What it is called here.
        pid: Its process.
        started: When the process began, in the kernel's ticks since the machine started: a process
            that gets the same number later has another.
        boot: The run of the machine that this is in.
        command: Program and arguments, to start it again.
        environment: Its variables, for the same.
    """

    name: str
    pid: int
    started: int
    boot: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


def boot_id(proc: Path = PROC) -> str:
    """Return what tells this run of the machine from others."""
    return (proc / "sys/kernel/random/boot_id").read_text().strip()


def started_at(pid: int, proc: Path = PROC) -> int | None:
    """Return when a process began, in ticks; None where it does not run, or has ended."""
    try:
        # The name, in parentheses, may have spaces and parentheses of its own.
        state, *rest = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in ("Z", "X") else int(rest[18])


def alive(record: Record, proc: Path = PROC) -> bool:
    """Tell whether that very process runs, rather than another of the same number."""
    return record.boot == boot_id(proc) and started_at(record.pid, proc) == record.started


def wait_for(
    what: str,
    seconds: float,
    probe: Callable[[], bool],
    failed: Callable[[], str | None] = lambda: None,
) -> None:
    """Wait until `probe` says yes.

    Args:
        what: What is waited for, for the message.
        seconds: How long at most.
        probe: Asked again and again.
        failed: Says why waiting is of no use any more, if so.

    Raises:
        ClusterError: It took too long, or `failed` says why it will not be.
    """
    deadline = time.monotonic() + seconds
    while True:
        answered = probe()
        # Afterwards: another program may have answered in the place of one that ended.
        if (reason := failed()) is not None:
            raise ClusterError(f"{what}: {reason}")
        if answered:
            return
        if time.monotonic() > deadline:
            raise ClusterError(f"{what}: not within {seconds:.0f} s")
        time.sleep(_POLL_SECONDS)


def marked(owner: Path, proc: Path = PROC) -> list[int]:
    """Return the processes that were started for an owner, and what they started themselves.

    They bear it in their environment: containerd's helpers do too, while containers, whose
    environment is their image's, do not.
    """
    found = []
    for directory in proc.glob("[0-9]*"):
        try:
            variables = (directory / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if os.fsencode(f"{MARK}={owner}") in variables:
            found.append(int(directory.name))
    return sorted(found)


class Processes:
    """The programs of a cluster.

    Args:
        records: Directory of their records.
        logs: Directory of their logs.
        owner: What they are marked with.
    """

    def __init__(self, records: Path, logs: Path, owner: Path) -> None:
        self._records = records
        self._logs = logs
        self._owner = owner

    def names(self) -> list[str]:
        """Return what was started, whether it still runs or not."""
        return sorted(path.stem for path in self._records.glob("*.json"))

    def record(self, name: str) -> Record | None:
        """Return a program's record; None where it was never started or is not readable."""
        try:
            values = json.loads((self._records / f"{name}.json").read_text())
            return Record(**{**values, "command": tuple(values["command"])})
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            return None

    def alive(self, name: str) -> bool:
        """Tell whether a program runs."""
        record = self.record(name)
        return record is not None and alive(record)

    def log(self, name: str) -> Path:
        """Return where a program's output goes."""
        return self._logs / f"{name}.log"

    def start(
        self, name: str, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> Record:
        """Start a program in a session of its own and write its record.

        Raises:
            ClusterError: It runs already, or cannot be started.
        """
        if self.alive(name):
            raise ClusterError(f"{name} runs already")
        variables = {
            **(os.environ if environment is None else environment),
            MARK: str(self._owner),
        }
        request = {
            "command": list(command),
            "environment": variables,
            "log": str(self.log(name)),
        }
        # Without site packages: it is to be quick.
        starter = [sys.executable, "-I", "-S", str(_LAUNCH)]
        done = subprocess.run(
            starter, input=json.dumps(request), capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise ClusterError(f"{name} cannot be started: {command[0]}: {done.stderr.strip()}")
        pid = int(done.stdout)
        record = Record(name, pid, started_at(pid) or 0, boot_id(), tuple(command), variables)
        path = self._records / f"{name}.json"
        path.unlink(missing_ok=True)
        # Whoever started it may have secrets in the environment.
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(record), indent=2) + "\n")
        return record

    def restart(self, name: str) -> Record:
        """Start a program that was stopped as it was started before.

        Raises:
            ClusterError: It was never started.
        """
        record = self.record(name)
        if record is None:
            raise ClusterError(f"there is no program {name}; there are {', '.join(self.names())}")
        return self.start(name, record.command, record.environment)

    def send(self, name: str, number: signal.Signals) -> bool:
        """Send a signal, to that very process only; tell whether it ran."""
        record = self.record(name)
        if record is None or not alive(record):
            return False
        os.kill(record.pid, number)
        return True

    def stop(self, name: str, number: signal.Signals = signal.SIGTERM, seconds: float = 15) -> None:
        """End a program and wait for its end; kill it where it takes longer than `seconds`."""
        if not self.send(name, number):
            return
        # One that was stopped takes no other signal than this.
        self.send(name, signal.SIGCONT)
        try:
            wait_for(name, seconds, lambda: not self.alive(name))
        except ClusterError:
            self.send(name, signal.SIGKILL)
            wait_for(f"the end of {name}", seconds, lambda: not self.alive(name))

    def why_not(self, *names: str) -> Callable[[], str | None]:
        """Return a function that says which of these ended, with the end of its log."""

        def check() -> str | None:
            for name in names:
                if not self.alive(name):
                    return f"{name} ended; {self.log(name)} ends with:\n{self.tail(name)}"
            return None

        return check

    def tail(self, name: str) -> str:
        """Return the last lines that a program wrote."""
        try:
            lines = self.log(name).read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return "(nothing)"
        return "\n".join(lines[-_LOG_LINES:]) or "(nothing)"

    def kill_all(self, first: Callable[[str], bool] = lambda name: False) -> list[str]:
        """Kill what runs, those first that `first` says; return their names."""
        names = sorted(self.names(), key=lambda name: not first(name))
        killed = [name for name in names if self.send(name, signal.SIGKILL)]
        for name in killed:
            wait_for(f"the end of {name}", 10, lambda name=name: not self.alive(name))  # type: ignore[misc]
        return killed
