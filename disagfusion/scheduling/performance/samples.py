"""What workers report, kept so that the whole range of work stays covered."""

from __future__ import annotations

import math
import re
from bisect import insort
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

from disagfusion.scheduling.performance.settings import PerformanceSettings
from disagfusion.scheduling.shapes import Shape

Pair = tuple[str, str]
"""A stage and a pool."""

Bucket = tuple[int, int, int, int]

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
# A microsecond to four months: nothing outside is a job, and squares stay finite.
_SHORTEST, _LONGEST = 1e-6, 1e7
_MAX_PEAK_BYTES = 1 << 50
_MAX_FEATURE = 1e15
# Clocks of two machines may differ; a sample from further ahead would hardly ever grow old.
_MAX_AHEAD = 300.0
_MAX_WORKERS = 10_000


@dataclass(frozen=True, slots=True)
class Sample:
    """One finished stage of one job, as its worker reports it.

    Attributes:
        stage: Name of the stage.
        pool: Where the worker runs.
        shape: What the job asked for.
        seconds: That the stage computed.
        peak_bytes: Peak memory of one accelerator; None where it was not measured.
        at: When it ended, in seconds of a clock that all samples share.
        warm_up: Whether the worker says that it was still warming up.
    """

    stage: str
    pool: str
    shape: Shape
    seconds: float
    peak_bytes: int | None
    at: float
    warm_up: bool = False

    @property
    def pair(self) -> Pair:
        """Stage and pool."""
        return self.stage, self.pool


class Verdict(StrEnum):
    """What became of a sample."""

    KEPT = "kept"
    WARM_UP = "warm-up"
    TOO_OLD = "too-old"
    BAD_NAME = "bad-name"
    BAD_SHAPE = "bad-shape"
    BAD_SECONDS = "bad-seconds"
    BAD_TIME = "bad-time"
    BAD_PEAK = "bad-peak"
    """Counted only: such a sample is kept without its peak."""


@dataclass(frozen=True, slots=True)
class SampleSnapshot:
    """What a store holds at one moment.

    Attributes:
        samples: All of them.
        regimes: For pairs that drifted: what was sampled before this time holds no longer.
    """

    samples: tuple[Sample, ...] = ()
    regimes: Mapping[Pair, float] = field(default_factory=dict)

    def by_pair(self) -> dict[Pair, list[Sample]]:
        """Return the samples that still hold, of each stage and pool."""
        pairs: dict[Pair, list[Sample]] = {}
        for sample in self.samples:
            if sample.at >= self.regimes.get(sample.pair, -math.inf):
                pairs.setdefault(sample.pair, []).append(sample)
        return pairs


def merge(snapshots: Iterable[SampleSnapshot]) -> SampleSnapshot:
    """Return what several stores hold together; of two regimes the later one counts."""
    samples: list[Sample] = []
    regimes: dict[Pair, float] = {}
    for snapshot in snapshots:
        samples += snapshot.samples
        for pair, at in snapshot.regimes.items():
            regimes[pair] = max(at, regimes.get(pair, -math.inf))
    return SampleSnapshot(tuple(samples), regimes)


def bucket_of(shape: Shape) -> Bucket:
    """Return in which octave of pixels, steps, items and tokens a shape lies."""
    return (
        math.floor(math.log2(shape.megapixels)),
        math.floor(math.log2(shape.num_inference_steps)),
        math.floor(math.log2(shape.batch_size)),
        math.floor(math.log2(shape.sequence_length)),
    )


class _Buckets:
    """Samples of one stage on one pool, each bucket in order of time."""

    def __init__(self) -> None:
        self._buckets: dict[Bucket, list[Sample]] = {}
        self.size = 0

    def __iter__(self) -> Iterator[Sample]:
        for samples in self._buckets.values():
            yield from samples

    def add(self, sample: Sample) -> None:
        bucket = self._buckets.setdefault(bucket_of(sample.shape), [])
        if not bucket or bucket[-1].at <= sample.at:
            bucket.append(sample)
        else:
            insort(bucket, sample, key=_at)
        self.size += 1

    def evict(self) -> None:
        """Drop the oldest sample of the fullest bucket."""
        most = max(map(len, self._buckets.values()))
        fullest = [bucket for bucket in self._buckets.values() if len(bucket) == most]
        oldest = min((bucket[0] for bucket in fullest), key=_at)
        self._drop(bucket_of(oldest.shape), 1)

    def expire(self, before: float) -> None:
        for key, samples in list(self._buckets.items()):
            old = 0
            while old < len(samples) and samples[old].at < before:
                old += 1
            if old:
                self._drop(key, old)

    def _drop(self, key: Bucket, count: int) -> None:
        samples = self._buckets[key]
        del samples[:count]
        self.size -= count
        if not samples:
            del self._buckets[key]


def _at(sample: Sample) -> float:
    return sample.at


class SampleStore:
    """The newest samples of every stage and pool, spread over the range of work.

    Each stage and pool has a fixed number of places. When they are taken, the oldest sample of
    the fullest bucket leaves, so that a flood of small jobs does not push out the few large ones.

    Attributes:
        counts: How many samples met each verdict since the start.
    """

    def __init__(self, settings: PerformanceSettings) -> None:
        self._settings = settings
        self._pairs: dict[Pair, _Buckets] = {}
        self._regimes: dict[Pair, float] = {}
        self._lives: OrderedDict[tuple[str, str, str], int] = OrderedDict()
        self.counts: Counter[Verdict] = Counter()

    def add(self, sample: Sample, *, now: float, incarnation: str | None = None) -> Verdict:
        """Keep a sample, or say why not.

        Args:
            sample: From a worker; nothing about it is taken for granted.
            now: The time, by the clock of `Sample.at`.
            incarnation: Identifies one life of a worker, whose first samples are warm-up whatever
                the worker says.
        """
        verdict = self._judge(sample, now)
        if verdict is Verdict.KEPT and (self._is_first(sample, incarnation) or sample.warm_up):
            verdict = Verdict.WARM_UP
        self.counts[verdict] += 1
        if verdict is Verdict.KEPT:
            self._keep(sample)
        return verdict

    def begin_regime(self, stage: str, pool: str, at: float) -> None:
        """Take note of a confirmed drift: what was sampled before it no longer holds."""
        self._regimes[stage, pool] = at

    def count(self, stage: str, pool: str) -> int:
        """Return how many samples there are of a stage on a pool."""
        buckets = self._pairs.get((stage, pool))
        return 0 if buckets is None else buckets.size

    def snapshot(self, now: float) -> SampleSnapshot:
        """Return all samples that are not too old, in order of time."""
        for pair in list(self._pairs):
            self._expire(pair, now)
        oldest = now - self._settings.sample_age
        self._regimes = {pair: at for pair, at in self._regimes.items() if at >= oldest}
        samples = sorted(
            (sample for buckets in self._pairs.values() for sample in buckets), key=_at
        )
        return SampleSnapshot(tuple(samples), dict(self._regimes))

    def restore(self, snapshot: SampleSnapshot, now: float) -> None:
        """Take over what a snapshot holds, as after a restart."""
        for pair, at in snapshot.regimes.items():
            self._regimes[pair] = max(at, self._regimes.get(pair, -math.inf))
        for sample in sorted(snapshot.samples, key=_at):
            self.add(sample, now=now)

    def _judge(self, sample: Sample, now: float) -> Verdict:
        if not (_NAME.fullmatch(sample.stage) and _NAME.fullmatch(sample.pool)):
            return Verdict.BAD_NAME
        if not _SHORTEST <= sample.seconds <= _LONGEST:
            return Verdict.BAD_SECONDS
        if not (math.isfinite(sample.at) and sample.at <= now + _MAX_AHEAD):
            return Verdict.BAD_TIME
        if now - sample.at > self._settings.sample_age:
            return Verdict.TOO_OLD
        try:
            usable = max(sample.shape.features) <= _MAX_FEATURE
        except OverflowError:
            usable = False
        return Verdict.KEPT if usable else Verdict.BAD_SHAPE

    def _is_first(self, sample: Sample, incarnation: str | None) -> bool:
        if incarnation is None:
            return False
        key = (incarnation, sample.stage, sample.pool)
        seen = self._lives.pop(key, 0) + 1
        self._lives[key] = min(seen, self._settings.warm_up_samples + 1)
        if len(self._lives) > _MAX_WORKERS:
            self._lives.popitem(last=False)
        return seen <= self._settings.warm_up_samples

    def _keep(self, sample: Sample) -> None:
        if sample.peak_bytes is not None and not 0 < sample.peak_bytes <= _MAX_PEAK_BYTES:
            self.counts[Verdict.BAD_PEAK] += 1
            sample = replace(sample, peak_bytes=None)
        buckets = self._pairs.setdefault(sample.pair, _Buckets())
        buckets.add(sample)
        if buckets.size > self._settings.capacity:
            buckets.evict()

    def _expire(self, pair: Pair, now: float) -> None:
        age = self._settings.sample_age
        before = now - age
        if pair in self._regimes:
            before = max(
                before,
                min(self._regimes[pair], now - age * self._settings.drifted_sample_share),
            )
        buckets = self._pairs[pair]
        buckets.expire(before)
        if not buckets.size:
            del self._pairs[pair]
