"""Descriptors or shared memory run out: what is sent then is lost or delivered, and it passes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

# A /dev/shm of its own, as a container has one.
_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
_SCRIPT = Path(__file__).with_name("starved.py")


def starved(*arguments: str, prefix: tuple[str, ...] = ()) -> list[list[str]]:
    """Run the process; return the words of its lines."""
    command = [*prefix, sys.executable, str(_SCRIPT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


@pytest.mark.parametrize("backend", ["tcp", "ucx"])
@pytest.mark.parametrize("left", [0, 1, 4, 8, 12, 16, 40])
def test_descriptors_run_out(backend: str, left: int) -> None:
    *first, third, fourth, received = starved("descriptors", backend, str(left))
    carrier = {"tcp": "tcp", "ucx": "ucx/shm"}[backend]
    outcomes = [line[0] for line in first]
    if left == 0:
        assert outcomes == ["lost", "lost"]
    if left == 40:
        assert outcomes == ["sent", "sent"]
    assert [third[:2], fourth[:2]] == [["sent", "m2"], ["sent", "m3"]]
    # Where an end had no descriptor for shared memory, that peer goes without for a while.
    assert {third[2], fourth[2]} <= {carrier, "ucx/tcp"}
    assert received == ["received", str(2 + outcomes.count("sent"))]


@pytest.mark.parametrize(("nbytes", "carrier"), [("1m", "ucx/tcp"), ("200m", "ucx/shm")])
def test_shared_memory_runs_out(nbytes: str, carrier: str) -> None:
    mount = f'mount -t tmpfs -o size={nbytes} tmpfs /dev/shm && exec "$@"'
    prefix = (*_NAMESPACE, "sh", "-c", mount, "sh")
    *lines, received = starved("memory", "ucx", prefix=prefix)
    assert lines == [["sent", f"m{number}", carrier] for number in range(4)]
    assert received == ["received", "4"]
