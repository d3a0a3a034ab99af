"""A process dies at a chosen point; every accepted job still ends SUCCEEDED, once, unchanged."""

from __future__ import annotations

import hashlib

import pytest
from systemkit import System, until

from disagfusion.client import JobState

SEEDS = range(4)

GATEWAY_POINTS = [
    *[("gateway", "jobs.commit.before", passes) for passes in (1, 2, 4, 7, 11)],
    *[("gateway", "jobs.commit.after", passes) for passes in (1, 2, 4, 7, 11)],
    ("gateway", "gateway.submit.stored", 1),
    ("gateway", "gateway.assign.encoder", 1),
    ("gateway", "gateway.assign.dit", 1),
    ("gateway", "gateway.assign.decoder", 1),
    ("gateway", "gateway.result.stored", 1),
    ("gateway", "results.fsync.before", 1),
    ("gateway", "results.rename.before", 1),
    ("gateway", "results.rename.after", 1),
    ("gateway", "results.sync.after", 1),
]

FRONT_POINTS = [
    (front, point, passes)
    for front, points in {
        "encoder-0": ["front.assign", "front.done.before", "front.done.after"],
        "dit-0": [
            "front.assign",
            "front.delivered.before",
            "front.delivered.after",
            "front.done.before",
            "front.done.after",
        ],
        "decoder-0": [
            "front.assign",
            "front.delivered.before",
            "front.delivered.after",
            "front.done.before",
            "front.done.after",
        ],
    }.items()
    for point in points
    for passes in (1,)
]

ENGINE_POINTS = [
    ("encoder-0", "engine.run"),
    ("encoder-0", "engine.finish"),
    ("dit-0", "engine.run"),
    ("dit-0", "engine.step"),
    ("dit-0", "engine.finish"),
    ("decoder-0", "engine.run"),
    ("decoder-0", "engine.finish"),
]


def digests(result: object) -> list[str]:
    return [hashlib.sha256(output.content).hexdigest() for output in result.outputs]


@pytest.fixture(scope="module")
def undisturbed(deployment: System) -> list[list[str]]:
    return [digests(deployment.submit(seed).result()) for seed in SEEDS]


def run_through(system: System, undisturbed: list[list[str]], process: str, point: str) -> None:
    handles = []

    def drawn_and_reached() -> bool:
        # Of several workers some jobs may pass one by.
        some = [system.submit(seed) for seed in SEEDS]
        assert [digests(handle.result()) for handle in some] == undisturbed
        handles.extend(some)
        return system.reached(process, point)

    until(drawn_and_reached, f"{process} at {point}")
    for handle in handles:
        events = list(handle.events())
        assert [event.state for event in events].count(JobState.SUCCEEDED) == 1
        assert events[-1].state is JobState.SUCCEEDED
        attempts = [event.attempt for event in events]
        assert attempts == sorted(attempts)


@pytest.mark.parametrize(("process", "point", "passes"), GATEWAY_POINTS + FRONT_POINTS)
def test_a_front_or_the_gateway_dies(
    system: System, undisturbed: list[list[str]], process: str, point: str, passes: int
) -> None:
    before = system.process(process)
    system.arm(process, point, passes)
    run_through(system, undisturbed, process, point)
    after = until(
        lambda: (entry := system.process(process)).state == "ready" and entry, f"{process} restarts"
    )
    assert after.pid != before.pid
    assert after.restarts == before.restarts + 1


@pytest.mark.parametrize(("process", "point"), ENGINE_POINTS)
def test_an_engine_dies(
    system: System, undisturbed: list[list[str]], process: str, point: str
) -> None:
    before = system.process(process)
    system.arm(process, point)
    run_through(system, undisturbed, process, point)
    after = system.process(process)
    assert after.pid == before.pid, "the front lives on"
