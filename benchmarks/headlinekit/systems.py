"""The systems that are compared: stage processes and unsplit pipelines, each in a memory group."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import json
import os
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from benchmarks.headlinekit.cgroups import Group, Hierarchy, Memory, forget
from benchmarks.headlinekit.model import OPTIONS, PARAMETERS
from disagfusion.client import AsyncClient
from disagfusion.errors import FailedPreconditionError
from disagfusion.local import LocalRuntime
from disagfusion.local.deployment import STAGES
from disagfusion.local.plan import Plan

THREADS = 1
START_SECONDS = 240.0
REPRODUCIBLE = {"OMP_NUM_THREADS": "1", "MKL_CBWR": "AVX2,STRICT"}
"""Without the second, MKL's rounding follows the addresses of the weights, which differ where they
are mapped from another file or copied."""

FRUGAL = {"MALLOC_MMAP_THRESHOLD_": str(256 * 1024)}
"""Group offloading makes an empty tensor for each weight that it drops. Where the threshold is
glibc's, which grows, they come from a heap that has been written to, and it grows until the process
is killed; so they are mapped anew, and cost nothing until they are written to."""

_NAMES = "zero one two three four five six seven eight nine".split()
_COLOURS = "red green blue orange purple".split()
_LONGEST_LINE = 64 * 2**20


def prompt(number: int) -> str:
    """Return a job's prompt."""
    return f"a handwritten {_NAMES[number % 10]} in {_COLOURS[number // 10 % 5]}"


class System(ABC):
    """Something that draws pictures.

    Attributes:
        processes: How many jobs it works on at a time.
    """

    processes: int

    @abstractmethod
    async def draw(self, number: int) -> bytes:
        """Return the encoded picture of a job."""

    @abstractmethod
    def memory(self) -> dict[str, Memory]:
        """Return what the kernel has counted, by process."""


class LimitedRuntime(LocalRuntime):
    """The embedded runtime, each stage's front and engine together in a group of their own.

    Engines are children of their fronts; gateway and supervisor are in no group.
    """

    def __init__(self, model: Path, groups: dict[str, Group], data: Path) -> None:
        super().__init__(
            model,
            threads=THREADS,
            data_dir=data,
            ready_timeout=START_SECONDS,
            settings={
                "fork_server": "", "prompt_cache_bytes": "0", "arena_bytes": str(64 * 2**20)
            },
        )  # fmt: skip
        self._groups = groups

    def _plan(self, directory: Path, locks: list[int]) -> Plan:
        plan = super()._plan(directory, locks)
        processes = tuple(
            dataclasses.replace(
                process,
                argv=self._groups[process.role].command(process.argv)
                if process.role in self._groups
                else process.argv,
                environment={**process.environment, **REPRODUCIBLE, **FRUGAL},
            )
            for process in plan.processes
            if process.role != "forkserver"
        )
        return dataclasses.replace(plan, processes=processes)


class Split(System):
    """Encoder, DiT and decoder as processes of their own."""

    processes = len(STAGES)

    def __init__(self, client: AsyncClient, groups: dict[str, Group]) -> None:
        self._client = client
        self._groups = groups

    async def draw(self, number: int) -> bytes:
        """See `System`."""
        result = await self._client.generate(
            prompt(number), seed=number, parameters=PARAMETERS, **OPTIONS
        )
        return result.outputs[0].content

    def memory(self) -> dict[str, Memory]:
        """See `System`."""
        return {stage: group.memory() for stage, group in self._groups.items()}


class Monolith:
    """One unsplit pipeline in a process.

    Args:
        process: That runs monolith.py.
        group: Which it is in.
    """

    def __init__(self, process: asyncio.subprocess.Process, group: Group) -> None:
        self._process = process
        self._group = group

    async def answer(self) -> dict[str, Any]:
        """Return the next line that the process prints.

        Raises:
            FailedPreconditionError: It has ended.
        """
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            code = await self._process.wait()
            killed = self._group.memory().killed
            raise FailedPreconditionError(
                f"the unsplit pipeline ended with status {code}; processes killed for want of"
                f" memory: {killed}",
                reason="OUT_OF_MEMORY" if killed else "PROCESS_ENDED",
            )
        found: dict[str, Any] = json.loads(line)
        return found

    async def draw(self, number: int) -> bytes:
        """Return the encoded picture of a job."""
        assert self._process.stdin is not None
        job = {"prompt": prompt(number), "seed": number, **OPTIONS, **PARAMETERS}
        self._process.stdin.write(json.dumps(job).encode() + b"\n")
        return base64.b64decode((await self.answer())["picture"])

    async def close(self) -> None:
        """End the process and wait for its end."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()


class Monoliths(System):
    """Unsplit pipelines; each job goes to the one that is free first."""

    def __init__(self, members: list[Monolith], groups: list[Group]) -> None:
        self.processes = len(members)
        self._groups = groups
        self._free: asyncio.Queue[Monolith] = asyncio.Queue()
        for member in members:
            self._free.put_nowait(member)

    async def draw(self, number: int) -> bytes:
        """See `System`."""
        member = await self._free.get()
        try:
            return await member.draw(number)
        finally:
            self._free.put_nowait(member)

    def memory(self) -> dict[str, Memory]:
        """See `System`."""
        return {f"unsplit-{i}": group.memory() for i, group in enumerate(self._groups)}


@contextlib.asynccontextmanager
async def split(
    hierarchy: Hierarchy, limit: int, model: Path, scratch: Path
) -> AsyncIterator[System]:
    """Start a gateway and three stages, each within the limit."""
    forget(model)
    with contextlib.ExitStack() as stack:
        groups = {stage: stack.enter_context(Group(hierarchy, stage, limit)) for stage in STAGES}
        runtime = stack.enter_context(LimitedRuntime(model, groups, scratch / "data"))
        async with AsyncClient(runtime.address, timeout=START_SECONDS) as client:
            yield Split(client, groups)


@contextlib.asynccontextmanager
async def monoliths(
    hierarchy: Hierarchy, limit: int | None, mode: str, copies: list[Path], scratch: Path
) -> AsyncIterator[System]:
    """Start an unsplit pipeline for each copy of the model, each within the limit."""
    for copy in copies:
        forget(copy)
    with contextlib.ExitStack() as stack:
        groups = [
            stack.enter_context(Group(hierarchy, f"{mode}-{index}", limit))
            for index in range(len(copies))
        ]
        members: list[Monolith] = []
        for group, copy in zip(groups, copies, strict=True):
            process = await _start(group, copy, mode, scratch / f"{mode}-{len(members)}")
            members.append(Monolith(process, group))
        try:
            async with asyncio.timeout(START_SECONDS):
                await asyncio.gather(*(member.answer() for member in members))
            yield Monoliths(members, groups)
        finally:
            for member in members:
                await member.close()


async def _start(
    group: Group, model: Path, mode: str, directory: Path
) -> asyncio.subprocess.Process:
    program = Path(__file__).with_name("monolith.py")
    arguments = [sys.executable, "-P", str(program), str(model), mode, str(THREADS), str(directory)]
    return await asyncio.create_subprocess_exec(
        *group.command(arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        limit=_LONGEST_LINE,
        env={**os.environ, **REPRODUCIBLE, **FRUGAL},
    )


def copies_of(model: Path, count: int, scratch: Path) -> Iterator[Path]:
    """Yield the model and copies of it: pages of one file would be charged to one group only."""
    yield model
    for index in range(1, count):
        copy = scratch / f"copy-{index}"
        if not copy.exists():
            shutil.copytree(model, copy)
        yield copy
