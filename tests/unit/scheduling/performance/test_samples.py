"""The store of samples: what it keeps, what it refuses, what leaves first."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from performancekit import SETTINGS, TRUE, VIDEO, samples, shapes

from disagfusion.scheduling.performance import (
    PerformanceSettings,
    Sample,
    SampleSnapshot,
    SampleStore,
    SnapshotDocument,
    Verdict,
    merge,
)
from disagfusion.scheduling.performance.documents import from_json, to_json
from disagfusion.scheduling.performance.samples import bucket_of
from disagfusion.scheduling.shapes import Shape

GOOD = Sample("dit", "a10", Shape(), 1.0, 1 << 30, 100.0)


def stored(store: SampleStore, now: float = 100.0) -> tuple[Sample, ...]:
    return store.snapshot(now).samples


@pytest.mark.parametrize(
    ("wrong", "verdict"),
    [
        ({"seconds": math.nan}, Verdict.BAD_SECONDS),
        ({"seconds": math.inf}, Verdict.BAD_SECONDS),
        ({"seconds": -math.inf}, Verdict.BAD_SECONDS),
        ({"seconds": -1.0}, Verdict.BAD_SECONDS),
        ({"seconds": 0.0}, Verdict.BAD_SECONDS),
        ({"seconds": 5e-324}, Verdict.BAD_SECONDS),
        ({"seconds": 1e300}, Verdict.BAD_SECONDS),
        ({"at": math.nan}, Verdict.BAD_TIME),
        ({"at": math.inf}, Verdict.BAD_TIME),
        ({"at": 1e9}, Verdict.BAD_TIME),
        ({"at": -math.inf}, Verdict.BAD_TIME),
        ({"at": 99.0 - SETTINGS.sample_age}, Verdict.TOO_OLD),
        ({"stage": "Dit!"}, Verdict.BAD_NAME),
        ({"pool": ""}, Verdict.BAD_NAME),
        ({"shape": Shape(height=10**200, width=10**200)}, Verdict.BAD_SHAPE),
        ({"shape": Shape(height=10**9, width=10**9)}, Verdict.BAD_SHAPE),
        ({"warm_up": True}, Verdict.WARM_UP),
    ],
)
def test_what_is_no_measurement_is_left_out_and_counted(
    wrong: dict[str, object], verdict: Verdict
) -> None:
    store = SampleStore(SETTINGS)
    assert store.add(replace(GOOD, **wrong), now=100.0) is verdict  # type: ignore[arg-type]
    assert stored(store) == ()
    assert store.counts == {verdict: 1}
    assert store.add(GOOD, now=100.0) is Verdict.KEPT
    assert stored(store) == (GOOD,)


@pytest.mark.parametrize("peak", [0, -1, 1 << 60, math.nan])
def test_a_peak_that_cannot_be_is_dropped_and_the_seconds_kept(peak: int) -> None:
    store = SampleStore(SETTINGS)
    assert store.add(replace(GOOD, peak_bytes=peak), now=100.0) is Verdict.KEPT
    assert stored(store) == (replace(GOOD, peak_bytes=None),)
    assert store.counts == {Verdict.KEPT: 1, Verdict.BAD_PEAK: 1}


def test_a_flood_of_small_jobs_leaves_the_few_large_ones() -> None:
    store = SampleStore(SETTINGS)
    large = samples([VIDEO] * 20)
    small = samples(shapes(5_000, sizes=(256,), steps=(4,)), start=20.0)
    for sample in (*large, *small):
        store.add(sample, now=sample.at)
    kept = stored(store, 5_020.0)
    assert len(kept) == store.count("dit", "a10") == SETTINGS.capacity
    assert [sample for sample in kept if sample.shape == VIDEO] == large
    newest = small[-(SETTINGS.capacity - 20) :]
    assert [sample for sample in kept if sample.shape != VIDEO] == newest


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 60)), max_size=120))
def test_the_oldest_of_the_fullest_bucket_leaves(steps: list[tuple[int, int]]) -> None:
    settings = PerformanceSettings(capacity=8, sample_age=50.0)
    store = SampleStore(settings)
    model: list[Sample] = []
    for serial, (octave, at) in enumerate(steps):
        shape = Shape(num_inference_steps=2**octave)
        # No two are equal, or the order among them could not be told.
        sample = replace(GOOD, shape=shape, seconds=1.0 + serial, at=float(at))
        now = 60.0
        store.add(sample, now=now)
        if now - at <= 50.0:
            model.append(sample)
            model.sort(key=lambda s: s.at)
        if len(model) > 8:
            by_bucket: dict[object, list[Sample]] = {}
            for one in model:
                by_bucket.setdefault(bucket_of(one.shape), []).append(one)
            fullest = max(len(bucket) for bucket in by_bucket.values())
            first = min(b[0].at for b in by_bucket.values() if len(b) == fullest)
            gone = [b[0] for b in by_bucket.values() if len(b) == fullest and b[0].at == first]
            kept = stored(store, now)
            missing = [one for one in gone if one not in kept]
            assert len(missing) == 1
            model.remove(missing[0])
        assert sorted(stored(store, now), key=lambda s: s.seconds) == sorted(
            model, key=lambda s: s.seconds
        )


def test_pools_and_stages_do_not_take_each_others_places() -> None:
    store = SampleStore(PerformanceSettings(capacity=5))
    for sample in samples(shapes(50), pool="l4") + samples(shapes(3)):
        store.add(sample, now=sample.at)
    assert (store.count("dit", "l4"), store.count("dit", "a10")) == (5, 3)
    assert store.count("encoder", "a10") == 0


def test_samples_leave_when_they_are_too_old() -> None:
    store = SampleStore(PerformanceSettings(sample_age=100.0))
    for sample in samples(shapes(10)):
        store.add(sample, now=sample.at)
    assert len(stored(store, 100.0)) == 10
    assert [sample.at for sample in stored(store, 104.5)] == [5.0, 6.0, 7.0, 8.0, 9.0]
    assert stored(store, 1_000.0) == ()
    assert store.count("dit", "a10") == 0


def test_after_a_drift_older_samples_no_longer_hold_and_leave_sooner() -> None:
    settings = PerformanceSettings(sample_age=800.0)
    store = SampleStore(settings)
    for sample in samples(shapes(100)):
        store.add(sample, now=sample.at)
    store.begin_regime("dit", "a10", 60.0)
    snapshot = store.snapshot(100.0)
    assert len(snapshot.samples) == 100
    assert [sample.at for sample in snapshot.by_pair()["dit", "a10"]] == list(range(60, 100))
    # An eighth of the age: those from before 60 leave at 100 + their time at the latest.
    assert min(sample.at for sample in stored(store, 150.0)) == 50.0
    assert len(stored(store, 500.0)) == 40
    # When all of them are gone, so is the memory of the drift.
    assert store.snapshot(861.0).regimes == {}


def test_the_first_samples_of_a_worker_are_warm_up_whatever_it_says() -> None:
    store = SampleStore(PerformanceSettings(warm_up_samples=2))
    verdicts = [store.add(GOOD, now=100.0, incarnation="one") for _ in range(4)]
    assert verdicts == [Verdict.WARM_UP, Verdict.WARM_UP, Verdict.KEPT, Verdict.KEPT]
    # A restart is another life, and so is another stage.
    assert store.add(GOOD, now=100.0, incarnation="two") is Verdict.WARM_UP
    encoder = replace(GOOD, stage="encoder")
    assert store.add(encoder, now=100.0, incarnation="one") is Verdict.WARM_UP
    # What the worker itself calls warm-up counts among the first.
    warm = replace(GOOD, warm_up=True)
    assert store.add(warm, now=100.0, incarnation="three") is Verdict.WARM_UP
    assert store.add(warm, now=100.0, incarnation="three") is Verdict.WARM_UP
    assert store.add(GOOD, now=100.0, incarnation="three") is Verdict.KEPT


def test_lives_of_workers_are_not_remembered_without_end() -> None:
    store = SampleStore(SETTINGS)
    for life in range(12_000):
        store.add(GOOD, now=100.0, incarnation=str(life))
    assert len(store._lives) == 10_000


def test_a_snapshot_survives_being_saved() -> None:
    store = SampleStore(SETTINGS)
    for sample in samples(shapes(30), peak=TRUE):
        store.add(sample, now=sample.at)
    store.begin_regime("dit", "a10", 12.0)
    before = store.snapshot(100.0)
    text = to_json(SnapshotDocument.of(before))
    after = SampleStore(SETTINGS)
    after.restore(from_json(SnapshotDocument, text, name="samples").snapshot(), 100.0)
    assert sorted(after.snapshot(100.0).samples, key=lambda s: s.at) == sorted(
        before.samples, key=lambda s: s.at
    )
    assert after.snapshot(100.0).regimes == before.regimes


def test_snapshots_of_several_stores_are_one() -> None:
    one = SampleSnapshot((GOOD,), {("dit", "a10"): 5.0, ("dit", "l4"): 1.0})
    two = SampleSnapshot((replace(GOOD, at=101.0),), {("dit", "a10"): 7.0})
    both = merge([one, two])
    assert [sample.at for sample in both.samples] == [100.0, 101.0]
    assert both.regimes == {("dit", "a10"): 7.0, ("dit", "l4"): 1.0}
    assert merge([]) == SampleSnapshot()
