"""Stage services in containers of one machine: what they do not share, and what they do without."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from disagfusion.pipeline.model_files import RECORD_NAME
from disagfusion.weights.cache import unused
from tests.cluster.containers import USER, VOLUMES, Container, Machine, Volume

sys.path.insert(0, str(Path(__file__).parents[1] / "integration" / "stage"))

from stagekit.driver import Driver, Worker, generation
from stagekit.processes import Cluster

STAGES = ("encoder", "dit", "decoder")
PROFILE = Path(__file__).parents[1] / "integration" / "emulation" / "profile.yaml"
EMULATED = {
    "device": "emulated:quick",
    "profile": VOLUMES / "profile" / "profile.yaml",
    "pipeline": "emulated",
    "time_scale": 0.01,
}
LISTENING = {
    "listen": "0.0.0.0:7430",
    "transport": "ucx",
    "transport_host": "0.0.0.0",
    "transport_port": 7431,
    "transport_advertise": "ADDRESS",
    "ucx_ports": "7440-7499",
    "metrics_listen": "0.0.0.0:9464",
    "arena_bytes": 64 << 20,
}
# Torch is imported by several processes at once, on machines with few cores.
PATIENCE = 240.0


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    # What is asked of containers goes to them.
    monkeypatch.setenv("no_proxy", "*")
    with Machine(tmp_path, os.getpid() % 250 + 1) as running:
        yield running


@pytest.fixture
def profile() -> Volume:
    return Volume(PROFILE.parent, "profile")


@asynccontextmanager
async def workers(*containers: Container) -> AsyncIterator[list[Worker]]:
    """Work streams to containers that may still be starting."""
    async with AsyncExitStack() as stack:
        found = []
        for container in containers:
            worker = Worker(f"{container.address}:7430")
            worker.patience = PATIENCE
            await listens(container)
            found.append(await stack.enter_async_context(worker))
        yield found


async def listens(container: Container) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        assert container.popen.poll() is None, container.said()
        assert time.monotonic() < deadline, container.said()
        try:
            _, writer = await asyncio.open_connection(container.address, 7430)
        except OSError:
            await asyncio.sleep(0.1)
        else:
            writer.close()
            return


@pytest.mark.parametrize("own", [True, False], ids=["all-its-own", "processes-of-the-machine"])
async def test_no_shared_memory_between_containers(
    machine: Machine, profile: Volume, own: bool
) -> None:
    containers = [
        machine.run(
            f"disagfusion_{stage}",
            settings={**LISTENING, **EMULATED, "name": f"{stage}-pod"},
            volumes=[profile],
            own_processes=own,
        )
        for stage in STAGES
    ]
    async with workers(*containers) as (encoder, dit, decoder):
        for worker in (encoder, dit, decoder):
            await worker.ready()
        assert dit.hello.worker.name == "dit-pod"
        driver = Driver(encoder, dit, decoder)
        for number in range(3):
            assert await driver.generate(f"job-{number}", generation())
        carried = {
            message.sent.transport for worker in (encoder, dit) for message in worker.all("sent")
        }
        assert carried == {"ucx/tcp"}
    for container in containers:
        assert container.stop() == 0, container.said()


def in_use(directory: Path) -> list[bool]:
    found = []
    for record in directory.glob(f"cache-*/*/*/{RECORD_NAME}"):
        with unused(record.parent) as nobody:
            found.append(not nobody)
    return found


@pytest.mark.timeout(900)
async def test_a_stage_from_a_cache_that_has_only_its_part(
    machine: Machine, tmp_path: Path
) -> None:
    containers = []
    for stage in STAGES:
        cache = tmp_path / f"cache-{stage}"
        cache.mkdir()
        os.chown(cache, USER, USER)
        volumes = [Volume(cache, "cache", writable=True)]
        fetch = machine.run(
            *("disagfusion.weights", "fetch", "builtin:digits", "--copy", "--stage", stage),
            *("--workflows", "text2image", "--cache", f"{VOLUMES}/cache"),
            *("--link", f"{VOLUMES}/cache/model", "--report", f"{VOLUMES}/cache/report.json"),
            settings={},
            volumes=volumes,
        )
        assert fetch.popen.wait(60) == 0, fetch.said()
        settings = {
            **LISTENING,
            "model": f"{VOLUMES}/cache/model",
            "workflows": '["text2image"]',
            "weights_report": f"{VOLUMES}/cache/report.json",
        }
        volumes = [Volume(cache, "cache")]
        containers.append(machine.run(f"disagfusion_{stage}", settings=settings, volumes=volumes))
    async with workers(*containers) as there:
        for worker in there:
            await worker.ready()
        versions = {(await worker.describe()).version for worker in there}
        content = await Driver(*there).generate("there", generation())
        assert there[0].all("sent")[0].sent.transport == "ucx/tcp"
        # Who reads it keeps it from being evicted, through a read-only mount as well.
        assert in_use(tmp_path) == [True] * 3
    for container in containers:
        assert container.stop() == 0, container.said()
    # The same on the machine itself, from the whole model.
    whole = Cluster(tmp_path, "")
    try:
        async with AsyncExitStack() as stack:
            here = [Worker(front.address) for front in whole.fronts(*STAGES)]
            for worker in here:
                worker.patience = PATIENCE
                await stack.enter_async_context(worker)
                await worker.ready()
            assert {(await worker.describe()).version for worker in here} == versions
            assert await Driver(*here).generate("here", generation()) == content
    finally:
        whole.close()


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group with a limit of 256 MiB."""
    mounts = Path("/sys/fs/cgroup")
    first = mounts / "memory" if (mounts / "memory").is_dir() else mounts
    limit = "memory.limit_in_bytes" if first.name == "memory" else "memory.max"
    directory = first / f"disagfusion-test-{os.getpid()}"
    directory.mkdir()
    try:
        (directory / limit).write_text(str(256 << 20))
        yield directory
    finally:
        directory.rmdir()


def test_more_memory_than_the_container_may_take_is_refused_at_the_start(
    machine: Machine, profile: Volume, group: Path
) -> None:
    container = machine.run(
        "disagfusion_dit",
        settings={**LISTENING, **EMULATED, "transport": "tcp", "arena_bytes": 1 << 30},
        volumes=[profile],
        group=group,
    )
    assert container.popen.wait(60) == 1
    line = container.said().strip().splitlines()[-1]
    assert line.startswith("disagfusion-dit: arena_bytes: 1073741824 bytes (1.00 GiB) do not fit")
    assert "limit of 268435456 bytes (0.25 GiB)" in line


def test_the_first_process_ends_while_it_starts(
    machine: Machine, profile: Volume, until: Callable[..., None]
) -> None:
    container = machine.run(
        "disagfusion_dit", settings={**LISTENING, **EMULATED}, volumes=[profile]
    )
    # As early as can be: long before it listens.
    until("a handler", 60, lambda: container.handles(signal.SIGTERM))
    assert "front listens" not in container.said()
    begin = time.monotonic()
    assert container.stop() == 0, container.said()
    assert time.monotonic() - begin < 20
