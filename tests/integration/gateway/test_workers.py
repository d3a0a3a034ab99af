"""Workers that die, fall silent, fail, come back late, or say nonsense."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from gatewaykit import eventually
from gatewaykit.pipeline import MEDIA, STEPS
from gatewaykit.stages import FakeStage, Network

from disagfusion.errors import DisagfusionError, InvalidArgumentError, UnavailableError
from disagfusion.jobs.model import Stage
from disagfusion.rpc.errors import from_status
from disagfusion.v1 import generation_pb2 as pb
from disagfusion.v1 import stage_pb2 as wire

QUICK = {
    "ping_interval_seconds": 0.05,
    "ping_deadline_seconds": 0.3,
    "reconnect_grace_seconds": 0.2,
}

NAMES = ("encoder-0", "dit-0", "decoder-0")
DEATHS = [
    ("encoder-0", "assigned"),
    ("encoder-0", "started"),
    ("encoder-0", "finished"),
    ("dit-0", "assigned"),
    ("dit-0", "started"),
    ("dit-0", "step"),
    ("dit-0", "finished"),
    ("decoder-0", "assigned"),
    ("decoder-0", "started"),
    ("decoder-0", "finished"),
    ("decoder-0", "media"),
]


async def finish(api: Any, job_id: str) -> pb.Job:
    end = await api.end_of(job_id)
    assert end.state == pb.JOB_STATE_SUCCEEDED
    assert await api.fetch(job_id) == MEDIA
    succeeded = [e async for e in api.watch(job_id) if e.state == pb.JOB_STATE_SUCCEEDED]
    assert len(succeeded) == 1
    return end  # type: ignore[no-any-return]


async def test_a_dit_behind_a_slow_link_is_passed_over_once_that_is_known(bench: Any) -> None:
    stages, _, api = await bench.running(dits=2)
    stages["dit-1"].link_seconds = 0.3
    for _ in range(2):
        job = await api.submit()
        await finish(api, job.job_id)
    assert stages["dit-1"].counts["done"] == 1, "idle workers take turns"
    for _ in range(4):
        job = await api.submit()
        await finish(api, job.job_id)
    assert stages["dit-0"].counts["done"] == 5


@pytest.mark.parametrize(("name", "place"), DEATHS)
async def test_a_worker_that_dies(bench: Any, name: str, place: str) -> None:
    stages, _, api = await bench.running(**QUICK)
    gate = stages[name].hold(place)
    job = await api.submit()
    await gate.reached.wait()
    await stages.restart(name)
    end = await finish(api, job.job_id)
    assert end.attempt == 2
    # What was held elsewhere was not computed again.
    if name != "encoder-0":
        assert stages["encoder-0"].counts["done"] == 1
    if name == "decoder-0":
        assert stages["dit-0"].counts["steps"] == STEPS


BREAKS = [
    *((name, place) for name in NAMES for place in ("assigned", "started", "finished")),
    ("decoder-0", "media"),
]


@pytest.mark.parametrize(("name", "place"), BREAKS)
async def test_a_stream_that_breaks_loses_nothing(bench: Any, name: str, place: str) -> None:
    stages, gateway, api = await bench.running()
    gate = stages[name].hold(place)
    job = await api.submit()
    await gate.reached.wait()
    stages[name].break_streams()
    await eventually(lambda: stages[name].counts["hellos"] == 2)
    gate.open()
    end = await finish(api, job.job_id)
    assert end.attempt == 1
    assert [stage.counts["done"] for stage in stages.by_name.values()] == [1, 1, 1]
    assert gateway.metric("disagfusion_stale_results_total", stage=name.partition("-")[0]) == 0


async def test_what_was_finished_while_the_stream_was_broken(bench: Any) -> None:
    stages, _, api = await bench.running(reconnect_grace_seconds=5)
    dit = stages["dit-0"]
    gate = dit.hold("step")
    job = await api.submit()
    await gate.reached.wait()
    dit.sleep()
    dit.break_streams()
    dit.release_all()
    await eventually(lambda: dit.counts["done"] == 1)
    dit.wake()
    end = await finish(api, job.job_id)
    assert end.attempt == 1
    assert dit.counts["steps"] == STEPS


async def test_a_silent_worker_is_given_up_and_its_late_result_refused(bench: Any) -> None:
    stages, gateway, api = await bench.running(dits=2, **QUICK)
    gates = [stages[name].hold("started") for name in ("dit-0", "dit-1")]
    job = await api.submit()
    done, _ = await asyncio.wait(
        [asyncio.create_task(gate.reached.wait()) for gate in gates],
        return_when=asyncio.FIRST_COMPLETED,
    )
    assert done
    slow = stages["dit-0"] if gates[0].reached.is_set() else stages["dit-1"]
    quick = stages["dit-1"] if slow is stages["dit-0"] else stages["dit-0"]
    slow.sleep()
    quick.release_all()
    end = await finish(api, job.job_id)
    assert end.attempt == 2
    assert end.stages[-2].worker == quick.name
    # It wakes up, finishes, and tells of it.
    slow.release_all()
    await eventually(lambda: slow.counts["done"] == 1)
    slow.wake()
    await eventually(lambda: slow.counts["hellos"] >= 2)
    await eventually(lambda: not slow.held)
    await eventually(lambda: gateway.metric("disagfusion_stale_results_total", stage="dit") >= 1)
    assert (await api.get(job.job_id)).attempt == 2


async def test_late_messages_are_refused_and_counted(bench: Any) -> None:
    stages, gateway, api = await bench.running()
    gate = stages["dit-0"].hold("started")
    job = await api.submit()
    await gate.reached.wait()
    stale = pb.StageRecord(stage=pb.STAGE_DIT, attempt=7, outcome="done")
    for attempt, job_id in ((7, job.job_id), (1, "nobody")):
        key = wire.OutputKey(job_id=job_id, stage=pb.STAGE_DIT, attempt=attempt)
        stages["dit-0"].emit(done=wire.StageDone(output=key, size_bytes=1, record=stale))
    await eventually(lambda: gateway.metric("disagfusion_stale_results_total", stage="dit") == 2)
    # That the input has come may not have been said yet.
    assert (await api.get(job.job_id)).state in (pb.JOB_STATE_ENCODING, pb.JOB_STATE_DENOISING)
    gate.open()
    await finish(api, job.job_id)


async def test_a_slow_worker_holds_up_no_other(bench: Any) -> None:
    stages, _, api = await bench.running(dits=2)
    slow = stages["dit-0"]
    slow.sleep()
    jobs = [await api.submit() for _ in range(3)]
    # Two may be given to the slow one; the encoder and the other DiT go on.
    await eventually(lambda: stages["dit-1"].counts["done"] >= 1)
    slow.wake()
    for job in jobs:
        await finish(api, job.job_id)


@pytest.mark.parametrize("kind", [wire.FAILURE_KIND_ENGINE_LOST, wire.FAILURE_KIND_INTERNAL, 77])
async def test_a_failure_is_tried_again(bench: Any, kind: Any) -> None:
    stages, gateway, api = await bench.running(dits=2)
    for name in ("dit-0", "dit-1"):
        stages[name].failures.append((kind, "boom"))
    job = await api.submit()
    end = await finish(api, job.job_id)
    assert end.attempt > 1
    assert stages["encoder-0"].counts["done"] == 1
    retries = gateway.metric("disagfusion_job_retries_total", stage="dit", reason="attempt")
    assert retries == end.attempt - 1


async def test_a_request_that_no_worker_can_do(bench: Any) -> None:
    stages, gateway, api = await bench.running()
    stages["dit-0"].failures.append((wire.FAILURE_KIND_INVALID_ARGUMENT, "strength is wrong"))
    end = await api.end_of((await api.submit()).job_id)
    assert end.state == pb.JOB_STATE_FAILED
    error = from_status(end.error)
    assert isinstance(error, InvalidArgumentError)
    assert "strength is wrong" in error.message
    assert gateway.metric("disagfusion_jobs_total", outcome="failed") == 1
    await finish(api, (await api.submit()).job_id)


async def test_a_job_that_fails_everywhere_fails(bench: Any) -> None:
    stages, _, api = await bench.running()
    stages["dit-0"].failures += [(wire.FAILURE_KIND_INTERNAL, "boom")] * 50
    end = await api.end_of((await api.submit()).job_id)
    assert end.state == pb.JOB_STATE_FAILED
    error = from_status(end.error)
    assert isinstance(error, DisagfusionError)
    assert "boom" in error.message


async def test_hand_overs_that_fail_are_repeated(bench: Any) -> None:
    stages, _, api = await bench.running()
    stages["encoder-0"].lose_sends = 1
    await finish(api, (await api.submit()).job_id)
    assert stages["encoder-0"].counts["done"] == 1


async def test_a_fetch_that_breaks_goes_on_where_it_was(bench: Any) -> None:
    stages, _, api = await bench.running()
    stages["decoder-0"].media_failures = 2
    end = await finish(api, (await api.submit()).job_id)
    assert end.attempt == 1


async def test_a_worker_that_talks_nonsense_is_given_up(bench: Any) -> None:
    stages, _, api = await bench.running(dits=2)
    gates = {name: stages[name].hold("started") for name in ("dit-0", "dit-1")}
    job = await api.submit()
    await eventually(lambda: any(gate.reached.is_set() for gate in gates.values()))
    mad = next(name for name, gate in gates.items() if gate.reached.is_set())
    sane = next(name for name in gates if name != mad)
    stages[sane].release_all()
    stages[mad].emit(started=wire.StageStarted(job_id=job.job_id, attempt=1, stage=99))
    end = await finish(api, job.job_id)
    assert end.attempt == 2
    await eventually(lambda: stages[mad].counts["hellos"] == 2)
    stages[mad].release_all()


async def test_workers_that_are_not_accepted(bench: Any) -> None:
    stages = await bench.stages()
    other = FakeStage(Stage.DIT, "dit-9", Network(), pipeline="another")
    double = FakeStage(Stage.DIT, "dit-0", Network(), incarnation="9")
    for number, stage in enumerate((other, double)):
        await stage.start(f"unix:{bench.directory}/odd-{number}")
    odd = ",".join(f"{stage.name}={stage.address}" for stage in (other, double))
    gateway = await bench.gateway(workers=f"{stages.workers},{odd}")
    api = bench.api()
    await eventually(lambda: other.counts["hellos"] > 1)
    await eventually(lambda: double.counts["hellos"] + stages["dit-0"].counts["hellos"] > 2)
    # One of the two that call themselves dit-0 works, and the one of another pipeline never.
    job = await api.submit()
    await eventually(lambda: double.counts["assigned"] + stages["dit-0"].counts["assigned"] == 1)
    assert other.counts["assigned"] == 0
    await api.cancel(job.job_id)
    labels = {"stage": "dit", "pool": "default", "state": "ready"}
    assert gateway.metric("disagfusion_workers", **labels) == 1
    for stage in (other, double):
        await stage.stop()


async def test_a_worker_that_changes_its_state(bench: Any) -> None:
    stages, gateway, api = await bench.running()
    encoder = stages["encoder-0"]
    encoder.state = wire.WORKER_STATE_DRAINING
    encoder.emit(
        state=wire.WorkerStateChanged(state=encoder.state, reason="", worker=encoder.worker())
    )
    labels = {"stage": "encoder", "pool": "default"}
    await eventually(lambda: gateway.metric("disagfusion_workers", state="draining", **labels) == 1)
    job = await api.submit()
    assert (await api.get(job.job_id)).state == pb.JOB_STATE_QUEUED
    encoder.state = wire.WORKER_STATE_READY
    encoder.emit(state=wire.WorkerStateChanged(state=encoder.state))
    await finish(api, job.job_id)
    assert gateway.metric("disagfusion_workers", state="draining", **labels) == 0


async def test_without_a_loaded_worker_submissions_wait_and_then_fail(bench: Any) -> None:
    await bench.gateway(workers=f"dit-0=unix:{bench.directory}/nobody", spec_wait_seconds=0.1)
    api = bench.api()
    with pytest.raises(UnavailableError, match="no worker has loaded") as caught:
        await api.submit()
    assert caught.value.retry_after == 1.0
    with pytest.raises(UnavailableError):
        await api.pipeline()


async def test_a_submission_waits_for_the_first_worker(bench: Any) -> None:
    from gatewaykit.deployment import Stages

    stages = Stages(bench.directory)
    await bench.gateway(workers=stages.workers, spec_wait_seconds=20)
    api = bench.api()
    submission = asyncio.create_task(api.submit())
    await asyncio.sleep(0.05)
    assert not submission.done()
    await stages.start()
    await finish(api, (await submission).job_id)
    await stages.stop()


async def test_workers_behind_a_name(bench: Any) -> None:
    stages = await bench.stages()
    dit = FakeStage(Stage.DIT, "dit-tcp", stages.network)
    address = await dit.start("127.0.0.1:0")
    await stages["dit-0"].stop()
    workers = [w for w in stages.workers.split(",") if not w.startswith("dit")]
    await bench.gateway(
        workers=",".join([*workers, f"dns:localhost:{address.rpartition(':')[2]}"]),
        resolve_interval_seconds=0.1,
    )
    await finish(bench.api(), (await bench.api().submit()).job_id)
    assert dit.counts["done"] == 1
    await dit.stop()
