"""The dispatcher's parts: queue, estimates, admission."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disagfusion.dispatch.estimates import Estimates
from disagfusion.dispatch.heap import RemovableHeap
from disagfusion.dispatch.settings import AdmissionLimits, Load, admit
from disagfusion.errors import ResourceExhaustedError
from disagfusion.jobs.model import Stage


@given(st.lists(st.tuples(st.sampled_from("push pop drop".split()), st.integers(0, 9))))
def test_heap_is_a_sorted_list(steps: list[tuple[str, int]]) -> None:
    heap: RemovableHeap[int] = RemovableHeap()
    model: dict[int, tuple[int, int]] = {}
    for serial, (what, key) in enumerate(steps):
        if what == "push":
            heap.push(key, (key % 3,))
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


def test_heap_does_not_grow_with_what_was_removed() -> None:
    heap: RemovableHeap[int] = RemovableHeap()
    for i in range(10_000):
        heap.push(i, (i,))
        heap.push(7, (i,))
        heap.remove(i)
    assert len(heap._heap) < 200


def test_predictions_fall_back_from_the_particular_to_the_general() -> None:
    estimates = Estimates()
    assert not estimates.service("a", Stage.DIT, "big").known
    estimates.observe_service("a", Stage.DIT, "big", 8.0)
    assert estimates.service("a", Stage.DIT, "big") == estimates.service("a", Stage.DIT, "big")
    assert estimates.service("a", Stage.DIT, "big").known
    estimates.observe_service("b", Stage.DIT, "small", 2.0)
    # The same kind of job elsewhere says more than another kind of job here.
    elsewhere = estimates.service("b", Stage.DIT, "big")
    assert (elsewhere.seconds, elsewhere.known) == (8.0, False)
    unseen = estimates.service("b", Stage.DIT, "huge")
    assert (unseen.seconds, unseen.known) == (2.0, False)
    assert 2.0 < estimates.service("c", Stage.DIT, "huge").seconds < 8.0
    for _ in range(50):
        estimates.observe_service("a", Stage.DIT, "big", 4.0)
    assert estimates.service("a", Stage.DIT, "big").seconds == pytest.approx(4.0, rel=0.01)


def test_nonsense_is_not_learned_and_memory_is_bounded() -> None:
    estimates = Estimates()
    estimates.observe_service("a", Stage.DIT, "x", float("nan"))
    estimates.observe_service("a", Stage.DIT, "x", -1.0)
    estimates.observe_transfer(-1.0)
    assert not estimates.service("a", Stage.DIT, "x").known
    assert estimates.transfer() == 0.0
    for i in range(10_000):
        estimates.observe_service("a", Stage.DIT, str(i), 1.0)
    assert len(estimates._service._values) <= 4096


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
