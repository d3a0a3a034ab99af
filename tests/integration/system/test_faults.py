"""Processes that stop, clients that leave, jobs that are cancelled or late."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time

import psutil
import pytest
from systemkit import PATIENCE, System, until

from disagfusion.client import JobHandle
from disagfusion.errors import (
    DeadlineExceededError,
    JobCancelledError,
)

LONG = 1000
"""Denoising steps that take some seconds; the most that a request may ask for."""


def until_state(handle: JobHandle, state: str, step: int = 0) -> None:
    """Wait for the first event of a state, and there for a denoising step."""
    for event in handle.events():
        seen = event.progress.step if event.progress else 0
        if event.state.name == state and seen >= step:
            return
    raise AssertionError(f"the job ended without {state}")


def dit_of(handle: JobHandle) -> str:
    records = [entry for entry in handle.refresh().stages if entry.stage.name == "DIT"]
    return records[-1].worker


def dit_engine_restarts(system: System) -> float:
    metric = "disagfusion_engine_restarts_total"
    return sum(system.metric(name, metric) for name in ("dit-0", "dit-1"))


def computing_engine(system: System) -> int:
    """An engine that computes; all are forks of the fork server."""
    server = psutil.Process(system.process("forkserver").pid)
    engines = server.children()
    before = {engine.pid: engine.cpu_times().user for engine in engines}
    return until(
        lambda: next((e.pid for e in engines if e.cpu_times().user > before[e.pid] + 0.1), None),
        "an engine computes",
    )


def busy_dit(system: System) -> str:
    """The DiT whose engine computes."""
    names = ("dit-0", "dit-1")
    metric = "disagfusion_accelerator_seconds_total"
    before = {name: system.metric(name, metric, state="busy") for name in names}
    return until(
        lambda: next(
            (n for n in names if system.metric(n, metric, state="busy") > before[n] + 0.05), None
        ),
        "a DiT computes",
    )


def test_a_stopped_front_is_found_and_its_late_result_refused(system: System) -> None:
    expected = system.submit(1, LONG).result().outputs[0].content
    stale = system.metric("gateway", "disagfusion_stale_results_total")
    handle = system.submit(1, LONG)
    until_state(handle, "DENOISING", step=1)
    victim = busy_dit(system)
    pid = system.process(victim).pid
    os.kill(pid, signal.SIGSTOP)
    try:
        assert handle.result().outputs[0].content == expected
    finally:
        os.kill(pid, signal.SIGCONT)
    records = handle.refresh().stages
    assert handle.job.attempt == 2
    assert dit_of(handle) != victim
    assert [entry.stage.name for entry in records].count("ENCODER") == 1, "not encoded again"
    until(
        lambda: system.metric("gateway", "disagfusion_stale_results_total") > stale,
        "the late result is refused and counted",
    )
    assert system.process(victim).restarts == 0 or system.process(victim).pid == pid


def test_held_tensors_spare_the_stages_before(system: System) -> None:
    system.arm("decoder-0", "engine.run")
    handle = system.submit(3, 20)
    handle.result()
    assert system.reached("decoder-0", "engine.run")
    records = handle.refresh().stages
    assert sum(entry.steps for entry in records if entry.stage.name == "DIT") == 20
    assert [entry.stage.name for entry in records].count("ENCODER") == 1
    assert handle.job.attempt == 2


def test_a_client_that_leaves_does_not_end_its_job(system: System) -> None:
    program = (
        "import sys; from disagfusion.client import Client\n"
        "client = Client(sys.argv[1])\n"
        "handle = client.submit('a handwritten seven in red', num_inference_steps=400, seed=5)\n"
        "print(handle.id, flush=True)\n"
        "handle.result()\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, system.runtime.address], stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    with child:
        job_id = child.stdout.readline().strip()
        until_state(system.client.job(job_id), "DENOISING", step=1)
        child.kill()
    handle = system.client.job(job_id)
    assert handle.result().images
    assert handle.job.attempt == 1


@pytest.mark.parametrize("state", ["QUEUED", "ENCODING", "DENOISING", "DECODING"])
def test_cancel_in_each_state(system: System, state: str) -> None:
    if state == "QUEUED":
        blockers = [system.submit(seed, LONG) for seed in range(8)]
        handle = system.submit(9, LONG)
    else:
        handle = system.submit(9, 2 if state == "DECODING" else LONG)
        until_state(handle, state, step=2 if state == "DENOISING" else 0)
        blockers = []
    job = handle.cancel()
    if state != "DECODING" or job.state.name == "CANCELLED":
        assert job.state.name == "CANCELLED"
        with pytest.raises(JobCancelledError):
            handle.result()
    for other in blockers:
        other.cancel()
    # The next job gets the device at once: it never waits for the cancelled one's other steps.
    assert system.submit(10, 2).result().images


def test_a_cancelled_job_takes_at_most_one_more_step(system: System) -> None:
    armed = 100_000
    names = ("dit-0", "dit-1")
    for name in names:
        system.arm(name, "engine.step", armed)

    def taken() -> int:
        return sum(system.steps_taken(name, armed) for name in names)

    handle = system.submit(9, LONG)
    until(lambda: taken() >= 5, "five steps")
    assert handle.cancel().state.name == "CANCELLED"
    # What was under way when the answer was written, and the one that the engine had begun.
    at_answer = taken()
    assert at_answer < LONG
    assert system.submit(10, 3).result().images
    assert taken() <= at_answer + 1 + 3


def test_a_stopped_engine_is_found_and_its_job_moves_on(system: System) -> None:
    expected = system.submit(1, LONG).result().outputs[0].content
    first = system.submit(1, LONG)
    until_state(first, "DENOISING", step=1)
    engine = computing_engine(system)
    handles = [first] + [system.submit(seed, LONG) for seed in (2, 3)]
    restarts = dit_engine_restarts(system)
    os.kill(engine, signal.SIGSTOP)
    try:
        assert handles[0].result().outputs[0].content == expected
        for handle in handles[1:]:
            assert handle.result().images
        until(
            lambda: dit_engine_restarts(system) > restarts,
            "the engine is replaced",
        )
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(engine, signal.SIGCONT)
    assert max(handle.refresh().attempt for handle in handles) == 2


def test_random_kills_under_load(system: System) -> None:
    chance = random.Random(7)
    expected = [system.submit(seed, 40).result().outputs[0].content for seed in range(4)]
    handles = [system.submit(seed % 4, 40) for seed in range(24)]
    killed = []
    for _ in range(6):
        time.sleep(chance.uniform(0.1, 0.5))
        entry = chance.choice([e for e in system.runtime.status() if e.role != "forkserver"])
        if entry.pid:
            os.kill(entry.pid, signal.SIGKILL)
            killed.append(entry.name)
        system.runtime.wait_ready(timeout=PATIENCE)
    assert len(killed) >= 4
    for number, handle in enumerate(handles):
        assert handle.result().outputs[0].content == expected[number % 4]
        states = [event.state.name for event in handle.events()]
        assert states.count("SUCCEEDED") == 1
        assert states[-1] == "SUCCEEDED"


def test_a_deadline_ends_a_job_wherever_it_is(system: System) -> None:
    handle = system.submit(11, 1000, timeout=0.5)
    with pytest.raises(DeadlineExceededError):
        handle.result()
    assert handle.refresh().state.name == "EXPIRED"
    assert system.submit(12).result().images
