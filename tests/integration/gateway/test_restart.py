"""A gateway that is killed, or asked to end, and the one that takes its place."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gatewaykit import eventually
from gatewaykit.gateways import InProcess, environment
from gatewaykit.pipeline import MEDIA, STEPS

from disagfusion.errors import DisagfusionError, UnavailableError
from disagfusion.v1 import generation_pb2 as pb

PLACES = [
    ("encoder-0", "assigned"),
    ("encoder-0", "started"),
    ("encoder-0", "finished"),
    ("dit-0", "assigned"),
    ("dit-0", "step"),
    ("dit-0", "finished"),
    ("decoder-0", "assigned"),
    ("decoder-0", "started"),
    ("decoder-0", "finished"),
    ("decoder-0", "media"),
]

STATES = {
    "encoder-0": pb.JOB_STATE_ENCODING,
    "dit-0": pb.JOB_STATE_DENOISING,
    "decoder-0": pb.JOB_STATE_DECODING,
}

FAILPOINTS = [
    ("gateway.submit.stored", 1),
    ("gateway.assign.encoder", 1),
    ("gateway.assign.dit", 1),
    ("gateway.assign.decoder", 1),
    ("gateway.result.stored", 1),
    # Nine changes lead from QUEUED to SUCCEEDED.
    *(("gateway.commit.before", number) for number in (1, 3, 5, 7, 9)),
    *(("gateway.commit.after", number) for number in (2, 4, 6, 8, 9)),
]


async def finish(api: Any, job_id: str) -> pb.Job:
    end = await api.end_of(job_id)
    assert end.state == pb.JOB_STATE_SUCCEEDED
    assert await api.fetch(job_id) == MEDIA
    return end  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("name", "place", "while_down"),
    [(name, place, "waits") for name, place in PLACES]
    # One that was only assigned may wait for an input that no gateway is there to have sent.
    + [(name, place, "goes on") for name, place in PLACES if place == "finished"],
)
@pytest.mark.parametrize("stored", [True, False], ids=["stored", "at once"])
async def test_killed_in_every_state(
    bench: Any, name: str, place: str, while_down: str, stored: bool
) -> None:
    stages = await bench.stages()
    gateway = await bench.process(workers=stages.workers)
    api = bench.api()
    gate = stages[name].hold(place)
    job = await api.submit()
    await gate.reached.wait()
    if stored:
        running = place != "assigned"
        status = pb.STAGE_STATUS_RUNNING if running else pb.STAGE_STATUS_TRANSFERRING
        await api.until(job.job_id, STATES[name], status)
    await gateway.kill()
    if while_down == "goes on":
        stages.release_all()
        await eventually(lambda: not stages[name].assignments)
    await gateway.start()
    stages.release_all()
    await finish(api, job.job_id)
    # Where the store knew that a stage was under way, it was adopted: nothing was done twice.
    done = [stage.counts["done"] for stage in stages.by_name.values()]
    assert done == [1, 1, 1] if stored else all(times in (1, 2) for times in done)
    if stored:
        assert stages["dit-0"].counts["steps"] == STEPS
    await eventually(lambda: not any(stage.held for stage in stages.by_name.values()))


@pytest.mark.parametrize(("point", "passes"), FAILPOINTS)
async def test_killed_at_every_commit(bench: Any, point: str, passes: int) -> None:
    points = bench.directory / "failpoints"
    points.mkdir()
    stages = await bench.stages()
    (points / point).write_text(str(passes))
    gateway = await bench.process(workers=stages.workers, failpoints=points)
    api = bench.api()

    async def submitted() -> pb.Job:
        while True:
            try:
                return await api.submit(client_request_id="once")  # type: ignore[no-any-return]
            except UnavailableError:
                await asyncio.sleep(0.02)

    submission = asyncio.create_task(submitted())
    assert await gateway.ended() == -signal.SIGKILL
    assert (points / f"{point}.reached").exists()
    await gateway.start()
    await finish(api, (await submission).job_id)
    assert len((await api.list()).jobs) == 1
    await eventually(lambda: not any(stage.held for stage in stages.by_name.values()))
    await eventually(lambda: not any(stage.assignments for stage in stages.by_name.values()))


async def test_jobs_in_the_queue_survive(bench: Any) -> None:
    stages = await bench.stages()
    gateway = await bench.process(workers=stages.workers)
    api = bench.api()
    gate = stages["encoder-0"].hold("assigned")
    jobs = [await api.submit(f"number {n}") for n in range(10)]
    await gate.reached.wait()
    await gateway.kill()
    stages.release_all()
    await gateway.start()
    for job in jobs:
        await finish(api, job.job_id)
    assert stages["dit-0"].counts["done"] == 10


async def test_a_worker_that_died_meanwhile(bench: Any) -> None:
    stages = await bench.stages()
    gateway = await bench.process(workers=stages.workers)
    api = bench.api()
    gate = stages["dit-0"].hold("step")
    job = await api.submit()
    await gate.reached.wait()
    await api.until(job.job_id, pb.JOB_STATE_DENOISING, pb.STAGE_STATUS_RUNNING)
    await gateway.kill()
    await stages.restart("dit-0")
    await gateway.start()
    end = await finish(api, job.job_id)
    assert end.attempt == 2
    assert stages["encoder-0"].counts["done"] == 1


async def test_finished_jobs_can_still_be_fetched(bench: Any) -> None:
    stages = await bench.stages()
    gateway = await bench.process(workers=stages.workers)
    api = bench.api()
    job = await api.submit()
    end = await finish(api, job.job_id)
    await gateway.kill()
    await stages.stop()
    await gateway.start()
    assert await api.get(job.job_id) == end
    assert await api.fetch(job.job_id) == MEDIA


async def test_asked_to_end_it_tells_its_watchers_and_leaves_the_work(bench: Any) -> None:
    stages = await bench.stages()
    gateway = await bench.process(workers=stages.workers)
    api = bench.api()
    gate = stages["dit-0"].hold("step")
    job = await api.submit()
    await gate.reached.wait()

    async def watch() -> None:
        async for _ in api.watch(job.job_id):
            pass

    watching = asyncio.create_task(watch())
    await api.until(job.job_id, pb.JOB_STATE_DENOISING, pb.STAGE_STATUS_RUNNING)
    assert await gateway.signal(signal.SIGTERM) == 0
    with pytest.raises(UnavailableError, match=r"going away|lost"):
        await watching
    assert stages["dit-0"].assignments
    await gateway.start()
    stages.release_all()
    await finish(api, job.job_id)
    assert [stage.counts["done"] for stage in stages.by_name.values()] == [1, 1, 1]


@contextmanager
def taken_port() -> Iterator[str]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield f"127.0.0.1:{taken.getsockname()[1]}"


async def test_what_keeps_it_from_starting_is_said_in_one_line(tmp_path: Path) -> None:
    with taken_port() as address:
        for settings, expected in (
            ({"listen": address}, f"{address} is in use"),
            ({"queue_limit": "many"}, "QUEUE_LIMIT"),
        ):
            child = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", "disagfusion_gateway"),
                env={**os.environ, **environment(tmp_path, **settings)},
                stderr=asyncio.subprocess.PIPE,
            )
            _, stderr = await child.communicate()
            assert child.returncode == 1
            lines = stderr.decode().strip().splitlines()
            assert len(lines) == 1
            assert expected in lines[0]


async def test_settings_that_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    with taken_port() as address:
        for settings, expected in (
            ({"metrics_listen": address}, f"cannot serve metrics on {address}"),
            ({"listen": "0.0.0.0:0"}, "API keys"),
            ({"listen": "nonsense"}, "listen"),
            ({"workers": "nonsense"}, "workers"),
            ({"tls_cert": "/nowhere"}, "tls_key"),
            ({"api_keys": "/nowhere"}, "api_keys"),
            ({"results": file}, "results"),
            ({"database": f"sqlite:///{file}/x.db"}, "job store"),
            ({"database": "nonsense"}, "database"),
        ):
            with pytest.raises(DisagfusionError) as caught:
                await InProcess(tmp_path, **settings).start()
            assert expected in str(caught.value)
            assert "\n" not in str(caught.value)


async def test_jobs_are_accepted_while_all_workers_rest(bench: Any) -> None:
    stages, gateway, api = await bench.running()
    first = await api.submit()
    await finish(api, first.job_id)
    await gateway.stop()
    await stages.stop()
    await bench.gateway(workers=stages.workers, spec_wait_seconds=0.1)
    api = bench.api()
    await api.pipeline()
    job = await api.submit()
    assert (await api.get(job.job_id)).state == pb.JOB_STATE_QUEUED
    await stages.start()
    await finish(api, job.job_id)
