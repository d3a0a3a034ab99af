"""Signals of the embedded system by way of a Prometheus that scrapes it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from disagfusion.balancing.signals import EmbeddedSignals
from disagfusion.local.plan import ProcessStatus
from disagfusion.scheduling.observation import (
    Fresh,
    JobGroup,
    Observation,
    Signal,
    StageLoad,
    Stale,
)
from disagfusion.scheduling.ports import SignalSource
from disagfusion.scheduling.shapes import Shape, WeightedShape
from disagfusion.signals.prometheus import PrometheusSignals
from disagfusion.telemetry.logging import get_logger

T = TypeVar("T")

_log = get_logger(__name__)


class ScrapedSignals(SignalSource):
    """Takes jobs and loads from Prometheus; workers and the model from those who have them.

    Metrics do not tell the shapes of jobs. They are divided among those that the gateway says its
    unfinished jobs have, or had when there were some last.

    Args:
        embedded: Knows the workers, and learns.
        signals: The pipeline in Prometheus.
        targets: Told where the processes' metrics are.
        time_scale: Real seconds, which are Prometheus', for one of the balancer's.
    """

    def __init__(
        self,
        embedded: EmbeddedSignals,
        signals: PrometheusSignals,
        targets: Targets,
        *,
        time_scale: float,
    ) -> None:
        self._embedded = embedded
        self._signals = signals
        self._targets = targets
        self._scale = time_scale

    async def observe(self, now: float) -> Observation:
        """See `SignalSource`; takes as long as Prometheus takes to answer or to time out."""
        own = await self._embedded.observe(now)
        self._targets.update(self._embedded.processes)
        self._signals.mix = _mix(own.jobs) or self._signals.mix
        found = await asyncio.to_thread(
            self._signals.observe,
            now * self._scale,
            own.accelerators,
            replicas=own.replicas,
            predictor=own.predictor,
        )
        return in_seconds_of(self._scale, found)


class Targets:
    """Writes down where metrics are, as Prometheus' `file_sd_configs` read it.

    Args:
        file: What is written, whenever it changes; None for nothing.
    """

    def __init__(self, file: Path | None) -> None:
        self._file = file
        self._written: list[str] | None = None

    def update(self, processes: Sequence[ProcessStatus]) -> None:
        """Take note of the processes."""
        addresses = sorted(one.metrics_address for one in processes if one.metrics_address)
        if self._file is None or addresses == self._written:
            return
        temporary = self._file.with_name(f".{self._file.name}")
        try:
            temporary.write_text(json.dumps([{"targets": addresses}]))
            os.replace(temporary, self._file)
        except OSError as error:
            # Tried again next time; without it Prometheus lacks a target, which shows.
            _log.warning("targets not written", file=str(self._file), problem=error.strerror)
        else:
            self._written = addresses


def _mix(jobs: Signal[tuple[JobGroup, ...]]) -> tuple[WeightedShape, ...]:
    counts: Counter[Shape] = Counter()
    for group in jobs.value if isinstance(jobs, Fresh) else ():
        counts[group.shape] += group.count
    return tuple(
        WeightedShape(**shape.model_dump(), weight=count) for shape, count in counts.items()
    )


def _plain(shape: Shape) -> Shape:
    """Return a shape without its weight: the same shape is to be the same after the mix changed."""
    return Shape(**shape.model_dump(include=set(Shape.model_fields)))


def _jobs(groups: tuple[JobGroup, ...]) -> tuple[JobGroup, ...]:
    return tuple(dataclasses.replace(group, shape=_plain(group.shape)) for group in groups)


def _arrived(counts: Mapping[Shape, int]) -> Mapping[Shape, int]:
    return {_plain(shape): count for shape, count in counts.items()}


def in_seconds_of(scale: float, seen: Observation) -> Observation:
    """Return an observation in real seconds in those of a clock that runs slower or faster.

    Args:
        scale: Real seconds for one of the clock's.
        seen: With times and durations in real seconds, and perhaps weighted shapes.
    """
    return dataclasses.replace(
        seen,
        jobs=_timed(seen.jobs, scale, _jobs),
        arrived=_timed(seen.arrived, scale, _arrived),
        loads={stage: _load(load, scale) for stage, load in seen.loads.items()},
    )


def _load(load: StageLoad, scale: float) -> StageLoad:
    return StageLoad(
        busy=_timed(load.busy, scale),
        starved=_timed(load.starved, scale),
        blocked=_timed(load.blocked, scale),
        waiting=_timed(load.waiting, scale),
        completed=_timed(load.completed, scale),
        seconds=_timed(load.seconds, scale, lambda seconds: seconds / scale),
        reporting=load.reporting,
    )


def _same(value: T) -> T:
    return value


def _timed(found: Signal[T], scale: float, change: Callable[[T], T] = _same) -> Signal[T]:
    match found:
        case Fresh(value, at):
            return Fresh(change(value), at / scale)
        case Stale(value, at):
            return Stale(change(value), at / scale)
    return found
