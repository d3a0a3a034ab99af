"""The gauge of the work that is left."""

from __future__ import annotations

import asyncio
import threading

import pytest
from disagfusion_gateway.backlog import Backlog, FromOtherThreads, by_pool
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from disagfusion.dispatch import events
from disagfusion.dispatch.dispatcher import Dispatcher
from disagfusion.jobs.model import Stage
from disagfusion.telemetry import metrics
from disagfusion.v1 import generation_pb2, stage_pb2


def worker(stage: Stage, pool: str, pipeline: str = "p") -> stage_pb2.Worker:
    number = generation_pb2.Stage.ValueType(stage)
    return stage_pb2.Worker(name="w", pipeline=pipeline, pool=pool, stages=[number])


def scraped(registry: metrics.CollectorRegistry) -> dict[tuple[str, str], float]:
    """The gauge as a scrape tells it: by stage and pool."""
    return {
        (sample.labels["stage"], sample.labels["pool"]): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        if family.name == "disagfusion_backlog_work_seconds"
        for sample in family.samples
    }


def test_a_stage_is_divided_as_its_workers_are() -> None:
    workers = [worker(Stage.DIT, "a"), worker(Stage.DIT, "a"), worker(Stage.DIT, "b")]
    found = by_pool({("p", Stage.DIT): 90.0, ("p", Stage.ENCODER): 4.0}, "p", workers)
    assert found == {
        ("p", "dit", "a"): 60.0,
        ("p", "dit", "b"): 30.0,
        ("p", "encoder", ""): 4.0,
        ("p", "decoder", ""): 0.0,
    }


def test_workers_of_another_pipeline_do_not_count() -> None:
    found = by_pool({("q", Stage.DIT): 8.0}, "p", [worker(Stage.DIT, "a", "q")])
    assert found["q", "dit", "a"] == 8.0
    assert found["p", "dit", ""] == 0.0


@given(
    st.dictionaries(st.sampled_from(list(Stage)), st.floats(0.0, 1e9)),
    st.lists(st.tuples(st.sampled_from(list(Stage)), st.sampled_from(["", "a", "b"])), max_size=9),
)
def test_nothing_is_lost_or_added(
    seconds: dict[Stage, float], places: list[tuple[Stage, str]]
) -> None:
    left = {("p", stage): value for stage, value in seconds.items()}
    found = by_pool(left, "p", [worker(*place) for place in places])
    for stage in Stage:
        parts = [value for key, value in found.items() if key[1] == stage.name.lower()]
        assert sum(parts) == pytest.approx(seconds.get(stage, 0.0))
        assert len(parts) == max(1, len({pool for one, pool in places if one is stage}))


def test_it_is_the_dispatchers_account_and_what_has_gone_is_gone() -> None:
    registry = metrics.new_registry("gateway")
    gauge = metrics.GatewayMetrics(registry, pipeline="p").backlog
    assert not scraped(registry), "nothing is known yet"
    dispatcher, workers = Dispatcher(now=100.0), [worker(Stage.DIT, "a")]
    gauge.follow(lambda: by_pool(dispatcher.backlog(100.0), "p", workers))
    assert scraped(registry) == {("encoder", ""): 0.0, ("dit", "a"): 0.0, ("decoder", ""): 0.0}
    for number in range(3):
        dispatcher.handle(events.JobSubmitted(f"j{number}", "t", "p"), 100.0)
    before = scraped(registry)
    one = dispatcher.backlog(100.0)["p", Stage.DIT]
    assert before["dit", "a"] == one > 0.0
    workers[0] = worker(Stage.DIT, "b")
    after = scraped(registry)
    assert after["dit", "b"] == one
    assert ("dit", "a") not in after
    for number in range(3):
        dispatcher.handle(events.CancelRequested(f"j{number}"), 101.0)
    assert set(scraped(registry).values()) == {0.0}


async def test_the_loop_is_asked_from_another_thread() -> None:
    mine = threading.get_ident()
    asked: list[int] = []

    def answer() -> Backlog:
        asked.append(threading.get_ident())
        return {("p", "dit", "a"): 2.0}

    ask = FromOtherThreads(answer, patience=60.0)
    assert await asyncio.to_thread(ask) == {("p", "dit", "a"): 2.0}
    assert asked == [mine]


async def test_a_loop_that_does_not_get_to_it_says_nothing() -> None:
    asked: list[int] = []

    def answer() -> Backlog:
        asked.append(1)
        return {("p", "dit", "a"): 2.0}

    ask = FromOtherThreads(answer, patience=0.01)
    thread_result: list[Backlog] = []
    thread = threading.Thread(target=lambda: thread_result.append(ask()))
    thread.start()
    thread.join()  # the loop is busy with this meanwhile
    assert thread_result == [{}]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not asked, "nobody waits for it any more"


def test_a_loop_that_has_ended_says_nothing() -> None:
    async def make() -> FromOtherThreads:
        return FromOtherThreads(lambda: {("p", "dit", "a"): 2.0})

    assert asyncio.run(make())() == {}
