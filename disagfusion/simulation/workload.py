"""The workload: everything a simulated result depends on, beside the profile and the policy."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from disagfusion.dispatch.settings import QueueOrder
from disagfusion.scheduling.document import (
    NO_TRUTH,
    Count,
    Document,
    Name,
    NonNegative,
    Positive,
    PositiveCount,
)
from disagfusion.scheduling.shapes import Shape


class Stream(Document):
    """Jobs that arrive one after another.

    Where the rate changes, the next regular job comes when the integral of the rate has grown by
    one.

    Attributes:
        shapes: Shape → weight; a job's shape is drawn by weight, or taken in turn.
        start: Seconds at which the stream begins; a regular stream's first job arrives then.
        end: Seconds before which jobs arrive; without it `count` ends the stream.
        count: Greatest number of jobs.
        every: Seconds between jobs.
        rate: Jobs per second, in the place of `every`.
        final_rate: Rate at the end, reached in a straight line; as at the start where not given.
        period: Seconds of a wave of the rate, as of a day; the whole stream where not given.
        amplitude: Share of the rate by which the wave rises and falls.
        process: Whether gaps are regular or exponentially distributed.
        turns: Whether shapes are taken in turn and not drawn.
    """

    shapes: Annotated[dict[Name, Positive], Field(min_length=1)]
    start: NonNegative = 0.0
    end: Positive | None = None
    count: PositiveCount | None = None
    every: Positive | None = None
    rate: NonNegative | None = None
    final_rate: NonNegative | None = None
    period: Positive | None = None
    amplitude: Annotated[float, Field(ge=0, le=1), NO_TRUTH] = 0.0
    process: Literal["regular", "poisson"] = "regular"
    turns: bool = False

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.every is None) == (self.rate is None):
            raise ValueError("expected one of `every` and `rate`")
        if self.end is None and self.count is None:
            raise ValueError("expected `end` or `count`: the stream must come to an end")
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"expected `end` after `start`, which is {self.start:g}")
        if self.end is None and (self.final_rate is not None or self.peak == 0):
            raise ValueError("expected `end` where the rate changes or is zero")
        if self.end is None and self.amplitude and self.period is None:
            raise ValueError("expected `period` or `end` where the rate rises and falls")
        return self

    def at_load(self, factor: float) -> Stream:
        """Return the stream with its jobs so many times as fast, and with as many of them."""
        changed = {
            name: factor * value
            for name in ("rate", "final_rate")
            if (value := getattr(self, name)) is not None
        }
        changed |= {
            name: value / factor
            for name in ("every", "start", "end", "period")
            if (value := getattr(self, name)) is not None
        }
        return self.model_copy(update=changed)

    @property
    def base(self) -> float:
        """Rate at the start but for waves, jobs per second."""
        if self.every is not None:
            return 1.0 / self.every
        assert self.rate is not None, "one of the two is given"
        return self.rate

    @property
    def peak(self) -> float:
        """Rate that is never exceeded, jobs per second."""
        highest = max(self.base, self.base if self.final_rate is None else self.final_rate)
        return highest * (1.0 + self.amplitude)


class Failure(Document):
    """Accelerators that fail together, and come back.

    Attributes:
        at: Seconds.
        pool: Which accelerators.
        replicas: How many of the replicas there, the longest-serving first.
        stage: Only replicas of this stage.
        repair_seconds: Until they can be used again; without it never.
    """

    at: NonNegative
    pool: Name
    replicas: PositiveCount
    stage: Name | None = None
    repair_seconds: NonNegative | None = None


class Throttle(Document):
    """A time in which replicas are slower, or faster, than they were.

    Attributes:
        start: Seconds.
        end: Seconds; without it until the end.
        pool: Only replicas on this pool.
        stage: Only replicas of this stage.
        speed: What is left of their speed: 0.6 takes 1/0.6 of the time.
    """

    start: NonNegative = 0.0
    end: Positive | None = None
    pool: Name | None = None
    stage: Name | None = None
    speed: Positive

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"expected `end` after `start`, which is {self.start:g}")
        return self


class Measure(Document):
    """What is reported, and how.

    Latency counts from a job's arrival to its last stage's end; percentiles are nearest-rank.

    Attributes:
        skip_jobs: Jobs at the beginning that latencies leave out.
        windows: Times between which finished jobs are counted: since the first, before the second.
        objective_seconds: Latency within which a job attains its objective; by shape or for all.
    """

    skip_jobs: Count = 0
    windows: tuple[tuple[NonNegative, NonNegative], ...] = ()
    objective_seconds: Positive | dict[Name, Positive] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        for index, (since, before) in enumerate(self.windows):
            if before <= since:
                raise ValueError(
                    f"windows.{index}: {since:g} to {before:g}; expected the earlier time first"
                )
        return self


class Noise(Document):
    """How far reality is from regular; drawn by seed, for each job the same under every policy.

    Attributes:
        arrival_seconds: Arrivals move by up to so much, either way.
        service_ratio: Service times differ by up to this share, either way.
    """

    arrival_seconds: NonNegative = 0.0
    service_ratio: Annotated[float, Field(ge=0, lt=1), NO_TRUTH] = 0.0


class Workload(Document):
    """Jobs, the fleet they meet, and what happens to it.

    Attributes:
        name: For people.
        source: Where the figures come from.
        shapes: By name.
        arrivals: Streams of jobs, or their times and shapes one by one in `trace`.
        trace: (seconds, shape) of single jobs.
        initial: Stage → pool → replicas at the start; without it the exact plan for the mix of
            all jobs.
        budget: Accelerators that may be used at any instant; without it the pools' own number.
        rebind_seconds: From the end of a replica's last job until it works for another stage; by
            stage, and where not given, from the profile's weights and bandwidths. There it begins
            with the decision on pools that load ahead.
        queue_order: What waiting jobs are ordered by, at every stage.
        waiting_per_slot: Of the dispatcher: jobs that may wait for a stage, per input slot of that
            stage, before the stage in front of it is held back; a replica has two slots.
        noise: How far reality is from regular.
        failures: Of accelerators.
        throttles: Of replicas.
        transfers: Whether hand-overs take the time that the profile's sizes and links say.
        measure: What is reported.
    """

    name: str = ""
    source: str = ""
    shapes: Annotated[dict[Name, Shape], Field(min_length=1)]
    arrivals: tuple[Stream, ...] = ()
    trace: tuple[tuple[NonNegative, Name], ...] = ()
    initial: dict[Name, dict[Name, Count]] | None = None
    budget: PositiveCount | None = None
    rebind_seconds: NonNegative | dict[Name, NonNegative] | None = None
    queue_order: QueueOrder = "submission"
    waiting_per_slot: PositiveCount = 16
    noise: Noise = Noise()
    failures: tuple[Failure, ...] = ()
    throttles: tuple[Throttle, ...] = ()
    transfers: bool = False
    measure: Measure = Measure()

    @model_validator(mode="after")
    def _known_shapes(self) -> Self:
        if not self.arrivals and not self.trace:
            raise ValueError("expected `arrivals` or `trace`: no job would come")
        for index, stream in enumerate(self.arrivals):
            _known(self, f"arrivals.{index}.shapes", *stream.shapes)
        _known(self, "trace", *(shape for _, shape in self.trace))
        if isinstance(self.measure.objective_seconds, dict):
            _known(self, "measure.objective_seconds", *self.measure.objective_seconds)
        return self

    def at_load(self, factor: float) -> Workload:
        """Return the workload with its streams so many times as fast.

        All else keeps its times: traces, failures, throttles and windows.
        """
        if factor == 1.0:
            return self
        streams = tuple(stream.at_load(factor) for stream in self.arrivals)
        return self.model_copy(update={"arrivals": streams})


def _known(workload: Workload, field: str, *names: str) -> None:
    for name in names:
        if name not in workload.shapes:
            known = ", ".join(workload.shapes)
            raise ValueError(f"{field}: no shape {name!r}; there are: {known}")
