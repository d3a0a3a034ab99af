"""Signals by way of Prometheus: the balancer's clock, shapes from elsewhere, targets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from disagfusion.balancing.scraped import ScrapedSignals, Targets, in_seconds_of
from disagfusion.local.plan import ProcessState, ProcessStatus
from disagfusion.scheduling.observation import (
    Fresh,
    Invalid,
    JobGroup,
    Missing,
    Observation,
    Replicas,
    Signal,
    StageLoad,
    Stale,
)
from disagfusion.scheduling.shapes import Shape, WeightedShape

SMALL, LARGE = Shape(height=64), Shape(height=1024)
REPLICAS = {"dit": {"a": Replicas(ready=2)}}


def process(name: str, address: str) -> ProcessStatus:
    return ProcessStatus(name, "dit", ProcessState.READY, 1, 0, metrics_address=address)


class Embedded:
    """What the gateway and the supervisor say."""

    def __init__(self) -> None:
        self.processes = [process("dit-0", "h:1")]
        self.jobs: Signal[tuple[JobGroup, ...]] = Missing("nobody")

    async def observe(self, now: float) -> Observation:
        return Observation(REPLICAS, self.jobs, Missing("nobody"), {}, {"a": 4})


class Prometheus:
    """Answers as `PrometheusSignals` does."""

    def __init__(self) -> None:
        self.mix: tuple[WeightedShape, ...] = (WeightedShape(),)
        self.asked: list[tuple[float, Mapping[str, int], Any]] = []

    def observe(
        self, now: float, accelerators: Mapping[str, int], *, replicas: Any, predictor: Any
    ) -> Observation:
        self.asked.append((now, accelerators, replicas))
        jobs = tuple(JobGroup(1, shape, 1, 0.0) for shape in self.mix)
        load = StageLoad(busy=Fresh(0.5, now), seconds=Fresh(3.0, now - 1.0), reporting=2)
        arrived: Fresh[Mapping[Shape, int]] = Fresh({shape: 2 for shape in self.mix}, now)
        return Observation(replicas, Fresh(jobs, now), arrived, {"dit": load}, accelerators)


def signals(embedded: Embedded, prometheus: Prometheus) -> ScrapedSignals:
    return ScrapedSignals(
        embedded,  # type: ignore[arg-type]
        prometheus,  # type: ignore[arg-type]
        Targets(None),
        time_scale=0.1,
    )


async def test_prometheus_is_asked_in_real_seconds_and_answers_in_the_balancers() -> None:
    prometheus = Prometheus()
    seen = await signals(Embedded(), prometheus).observe(200.0)
    assert prometheus.asked == [(20.0, {"a": 4}, REPLICAS)]
    assert isinstance(seen.jobs, Fresh)
    assert seen.jobs.at == 200.0
    assert seen.loads["dit"].busy == Fresh(0.5, 200.0)
    assert seen.loads["dit"].seconds == Fresh(30.0, 190.0)
    assert seen.loads["dit"].reporting == 2


async def test_shapes_are_those_that_the_gateway_told_last() -> None:
    embedded, prometheus = Embedded(), Prometheus()
    source = signals(embedded, prometheus)
    groups = [JobGroup(0, SMALL, 1, 1.0), JobGroup(1, LARGE, 3, 1.0), JobGroup(2, SMALL, 1, 1.0)]
    embedded.jobs = Fresh(tuple(groups), 10.0)
    before = await source.observe(10.0)
    assert {(one.height, one.weight) for one in prometheus.mix} == {(64, 2.0), (1024, 3.0)}
    embedded.jobs = Fresh((JobGroup(1, LARGE, 2, 1.0), JobGroup(1, SMALL, 1, 1.0)), 20.0)
    after = await source.observe(20.0)
    # Weights change all the time; a shape is the same shape for all that.
    assert isinstance(before.arrived, Fresh)
    assert isinstance(after.arrived, Fresh)
    assert set(before.arrived.value) == set(after.arrived.value) == {SMALL, LARGE}
    assert isinstance(after.jobs, Fresh)
    assert {group.shape for group in after.jobs.value} == {SMALL, LARGE}
    silences: list[Signal[tuple[JobGroup, ...]]] = [Fresh((), 3.0), Missing("gone"), Stale((), 1.0)]
    for silence in silences:
        embedded.jobs = silence
        await source.observe(30.0)
        assert {one.weight for one in prometheus.mix} == {2.0, 1.0}


def test_what_is_not_fresh_stays_what_it_is() -> None:
    seen = Observation(
        {}, Missing("m"), Invalid("i"), {"dit": StageLoad(waiting=Stale(1, 8.0))}, {}
    )
    found = in_seconds_of(2.0, seen)
    assert (found.jobs, found.arrived) == (Missing("m"), Invalid("i"))
    assert found.loads["dit"].waiting == Stale(1, 4.0)


def test_targets_are_written_when_they_change(tmp_path: Path) -> None:
    file = tmp_path / "targets.json"
    targets = Targets(file)
    targets.update([process("b", "h:2"), process("a", "h:1"), process("c", "")])
    assert json.loads(file.read_text()) == [{"targets": ["h:1", "h:2"]}]
    file.unlink()
    targets.update([process("a", "h:1"), process("b", "h:2")])
    assert not file.exists(), "nothing has changed"
    targets.update([process("a", "h:1")])
    assert json.loads(file.read_text()) == [{"targets": ["h:1"]}]
    assert list(tmp_path.iterdir()) == [file]


def test_targets_that_cannot_be_written_are_tried_again(tmp_path: Path) -> None:
    directory = tmp_path / "later"
    targets = Targets(directory / "targets.json")
    targets.update([process("a", "h:1")])
    directory.mkdir()
    targets.update([process("a", "h:1")])
    assert (directory / "targets.json").exists()
