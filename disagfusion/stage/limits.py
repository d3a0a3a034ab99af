"""How much memory this process may take: the limit of its container. Linux only."""

from __future__ import annotations

from pathlib import Path

from disagfusion.errors import FailedPreconditionError

_ROOT = Path("/")


def memory_limit(root: Path = _ROOT) -> int | None:
    """Return the bytes that this process's control groups leave it; None where there is no limit.

    Args:
        root: Where the file systems are, for tests.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return None
    limits = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        # In a namespace of its own a container's group is the root that it sees.
        if controllers == "":
            limits += _limits(root / "sys/fs/cgroup", path, "memory.max")
        elif "memory" in controllers.split(","):
            limits += _limits(root / "sys/fs/cgroup/memory", path, "memory.limit_in_bytes")
    return min(limits, default=None)


def check_arena(nbytes: int, root: Path = _ROOT) -> None:
    """Check that the memory of inputs and held outputs fits what the container may take.

    It would be found out in the middle of a job, when the kernel ends the process.

    Raises:
        FailedPreconditionError: It does not.
    """
    limit = memory_limit(root)
    if limit is not None and nbytes >= limit:
        raise FailedPreconditionError(
            f"arena_bytes: {nbytes} bytes ({nbytes / 2**30:.2f} GiB) do not fit beside the engine "
            f"into the container's memory limit of {limit} bytes ({limit / 2**30:.2f} GiB); "
            "lower DISAGFUSION_ARENA_BYTES or raise the limit",
            reason="MEMORY_LIMIT",
        )


def _limits(mount: Path, path: str, name: str) -> list[int]:
    groups = [mount / path.strip("/")]
    while groups[-1] != mount:
        groups.append(groups[-1].parent)
    found = []
    for group in groups:
        try:
            text = (group / name).read_text().strip()
        except OSError:
            continue
        # Version 1 says a number near 2 to the 63rd for no limit.
        if text.isdecimal() and int(text) < 1 << 60:
            found.append(int(text))
    return found
