"""The dispatcher's parts: heap, order, links, admission."""

import math
from bisect import bisect_left, insort
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disagfusion.dispatch.heap import RemovableHeap
from disagfusion.dispatch.links import Links
from disagfusion.dispatch.ordered import Ordered
from disagfusion.dispatch.settings import AdmissionLimits, Load, admit
from disagfusion.errors import ResourceExhaustedError


@given(st.lists(st.tuples(st.sampled_from("push pop drop".split()), st.integers(0, 9))))
def test_heap_is_a_sorted_list(steps: list[tuple[str, int]]) -> None:
    heap: RemovableHeap[int] = RemovableHeap()
    model: dict[int, tuple[int, int]] = {}
    for serial, (what, key) in enumerate(steps):
        if what == "push":
            heap.push(key, key % 3)
            model[key] = (key % 3, serial)
        elif what == "drop":
            heap.remove(key)
            model.pop(key, None)
        else:
            first = min(model, key=model.__getitem__) if model else None
            assert heap.pop() == first
            if first is not None:
                del model[first]
        assert len(heap) == len(model)
        assert set(heap) == set(model)
        assert all(key in heap for key in model)
        assert all(heap.least <= rank for rank, _ in model.values())


@pytest.mark.parametrize("size", [0, 1, 30, 3000])
@pytest.mark.parametrize("leaving", [0.1, 0.49])
def test_ordered_is_a_sorted_list(size: int, leaving: float) -> None:
    ordered: Ordered[tuple[int, int]] = Ordered()
    model: list[tuple[int, int]] = []
    random = Random(size)
    for serial in range(size):
        if model and random.random() < leaving:
            item = random.choice(model)
            ordered.remove(item)
            model.remove(item)
        else:
            item = (random.randrange(50), serial)
            ordered.add(item)
            insort(model, item)
        assert ordered.least == (model[0][0] if model else math.inf)
    assert list(ordered) == model
    assert (len(ordered), ordered.size) == (len(model), len(model))
    assert ordered.first() == (model[0] if model else None)
    for count in (0, 1, 7, 600):
        assert ordered.head(count) == model[:count]
        bound = (random.randrange(60),)
        place = bisect_left(model, bound)
        assert ordered.before(bound) == place
        assert ordered.upto(bound, count) == model[:place][:count]
        assert ordered.since(bound, count) == model[place:][:count]
        if count < len(model):
            assert ordered.at(count) == model[count]
    with pytest.raises(KeyError):
        ordered.remove((99, 99))
    with pytest.raises(IndexError):
        ordered.at(len(model))


def test_ordered_does_not_keep_what_was_removed() -> None:
    ordered: Ordered[tuple[int]] = Ordered()
    for i in range(20_000):
        ordered.add((i,))
    for i in range(20_000):
        if i % 1000:
            ordered.remove((i,))
    assert [item[0] for item in ordered] == list(range(0, 20_000, 1000))
    assert len(ordered._blocks) == 1


def test_heap_does_not_grow_with_what_was_removed() -> None:
    heap: RemovableHeap[int] = RemovableHeap()
    for i in range(10_000):
        heap.push(i, i)
        heap.push(7, i)
        heap.remove(i)
    assert len(heap._heap) < 200


@pytest.mark.parametrize(("latency", "rate"), [(0.002, 1e9), (0.0, 5e6), (0.3, 1e12)])
def test_a_links_latency_and_bandwidth_are_found(latency: float, rate: float) -> None:
    links, random = Links(), Random(1)
    for _ in range(100):
        nbytes = random.randrange(1, 100_000_000)
        links.observe("e", "d", nbytes, latency + nbytes / rate, now=0.0)
    for nbytes in (0, 1_000_000, 42_000_000):
        found = links.estimate("e", "d", now=0.0).seconds(nbytes)
        assert found == pytest.approx(latency + nbytes / rate, rel=0.01, abs=1e-4)


def test_a_link_that_has_become_slow_is_noticed() -> None:
    links = Links()
    for rate in (1e9, 1e8):
        for _ in range(40):
            for nbytes in (1_000_000, 5_000_000):
                links.observe("e", "d", nbytes, nbytes / rate, now=0.0)
    assert links.estimate("e", "d", now=0.0).seconds(5_000_000) == pytest.approx(0.05, rel=0.1)


@given(
    observed=st.lists(
        st.tuples(st.integers(0, 1 << 40), st.floats(0.0, 1e4)), min_size=1, max_size=30
    ),
    asked=st.integers(0, 1 << 40),
)
def test_links_are_never_faster_than_light(observed: list[tuple[int, float]], asked: int) -> None:
    links = Links()
    for nbytes, seconds in observed:
        links.observe("e", "d", nbytes, seconds, now=0.0)
    estimate = links.estimate("e", "d", now=0.0)
    assert estimate.latency >= 0.0
    assert estimate.seconds_per_byte >= 0.0
    assert math.isfinite(estimate.seconds(asked))


def test_an_unknown_link_is_like_its_receivers_others_then_like_its_senders() -> None:
    links = Links()
    assert links.estimate("e1", "d1", now=0.0).seconds(1000) == 0.0
    links.observe("e1", "d1", 1000, 1.0, now=0.0)
    links.observe("e2", "d2", 1000, 3.0, now=0.0)
    assert links.estimate("e2", "d1", now=0.0).seconds(2000) == pytest.approx(2.0)
    assert links.estimate("e2", "d3", now=0.0).seconds(1000) == pytest.approx(3.0)
    assert 1.0 < links.estimate("e3", "d3", now=0.0).seconds(1000) < 3.0
    # A link of which nothing was heard for a minute is unknown again, and so are they all.
    links.observe("e2", "d2", 1000, 3.0, now=50.0)
    assert links.estimate("e1", "d1", now=61.0).seconds(1000) > 1.0
    assert links.estimate("e2", "d2", now=111.0).seconds(1000) == 0.0


def test_what_is_known_of_links_is_bounded_and_no_nonsense() -> None:
    links = Links()
    links.observe("e", "d", -1, 1.0, now=0.0)
    links.observe("e", "d", 1, float("nan"), now=0.0)
    links.observe("e", "d", 1, math.inf, now=0.0)
    assert links.estimate("e", "d", now=0.0).seconds(1) == 0.0
    for number in range(5000):
        links.observe(f"e{number}", "d", 1, 1.0, now=0.0)
    assert len(links._pairs) <= 4096


def test_receivers_that_are_near_a_sender_are_remembered() -> None:
    links = Links()
    for _ in range(20):
        for number in range(20):
            seconds = 0.1 if number % 7 == 3 else 1.0
            links.observe("e", f"d{number}", 1000, seconds, now=0.0)
    assert sorted(links.near("e")) == ["d10", "d17", "d3"]
    assert links.near("another") == []
    for _ in range(3):
        links.observe("e", "d3", 1000, 2.0, now=0.0)
    assert sorted(links.near("e")) == ["d10", "d17"]


def test_admission() -> None:
    limits = AdmissionLimits(queued=10, unfinished_per_tenant=3)
    admit(Load(9, 2, 1.0), limits, tenant="t")
    with pytest.raises(ResourceExhaustedError) as full:
        admit(Load(10, 0, 2.5), limits, tenant="t")
    assert (full.value.reason, full.value.retry_after) == ("QUEUE_FULL", 2.5)
    with pytest.raises(ResourceExhaustedError) as quota:
        admit(Load(0, 3, 1000.0), limits, tenant="t")
    assert (quota.value.reason, quota.value.retry_after) == ("TENANT_QUOTA", 60.0)
    admit(Load(10**6, 10**6, 1.0), AdmissionLimits(0, 0), tenant="t")
