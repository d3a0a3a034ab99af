"""Computations in short-lived processes of their own, at low priority and within limits."""

from __future__ import annotations

import asyncio
import os
import resource
import sys

from disagfusion.errors import DeadlineExceededError, UnavailableError

_NICENESS = 10


async def compute(
    module: str, request: str, *, seconds: float, memory_bytes: int | None = None
) -> bytes:
    """Have a module answer a request: run it, write to its standard input, read its output.

    Args:
        module: Such as `disagfusion.scheduling.performance`.
        request: What it is asked.
        seconds: That it may take, waiting included; also of computing where nobody waits any more.
        memory_bytes: Address space that it may use; None: no bound.

    Raises:
        UnavailableError: It did not start, or ended with a status; the message has its last line.
        DeadlineExceededError: It took too long, and was killed.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", module),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise UnavailableError(f"{module} was not started: {error.strerror}") from error
    try:
        _bound(process.pid, seconds, memory_bytes)
        async with asyncio.timeout(seconds):
            output, errors = await process.communicate(request.encode())
    except TimeoutError as error:
        raise DeadlineExceededError(f"{module} took longer than {seconds:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        last = errors.decode(errors="replace").strip().splitlines()[-1:]
        why = "".join(last) or "it wrote no reason"
        raise UnavailableError(f"{module} ended with status {process.returncode}: {why}")
    return output


def _bound(pid: int, seconds: float, memory_bytes: int | None) -> None:
    try:
        # Only root may give a process more than it has.
        own = os.getpriority(os.PRIO_PROCESS, pid)
        os.setpriority(os.PRIO_PROCESS, pid, max(own, _NICENESS))
        limit = int(seconds) + 1
        resource.prlimit(pid, resource.RLIMIT_CPU, (limit, limit))
        if memory_bytes is not None:
            resource.prlimit(pid, resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    except ProcessLookupError:
        return  # it has ended already, which its status will tell
