"""When messages arrive over a shaped link, by its own clock."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disagfusion.transport.testing import LinkShape, ShapedLink

MEGABYTE = 1_000_000


def link(seed: int = 0, **shape: float) -> ShapedLink:
    return ShapedLink(LinkShape(**shape), Random(seed), opened=100.0)


def test_without_a_shape_messages_are_there_at_once() -> None:
    assert link().carry(MEGABYTE, 100.5) == 100.5


def test_latency_and_bandwidth() -> None:
    slow = link(latency=0.25, bytes_per_second=2 * MEGABYTE)
    assert slow.carry(MEGABYTE, 101.0) == 101.75
    # The second waits for the first one's bytes, not for its latency.
    assert slow.carry(MEGABYTE, 101.0) == 102.25
    assert slow.carry(MEGABYTE, 200.0) == 200.75


@pytest.mark.parametrize("shape", [{"jitter": 0.5}, {"tail": 2.5}, {"tail": 2.5, "jitter": 0.5}])
def test_jitter_changes_each_time_but_not_their_mean(shape: dict[str, float]) -> None:
    uneven = link(latency=0.01, **shape)
    times = [uneven.carry(0, 200.0) - 200.0 for _ in range(20_000)]
    assert len(set(times)) > 19_000
    assert sum(times) / len(times) == pytest.approx(0.01, rel=0.05)
    if "tail" not in shape:
        assert 0.005 <= min(times) <= max(times) <= 0.015
    else:
        assert max(times) > 0.1


def test_a_stall() -> None:
    stalling = link(bytes_per_second=MEGABYTE, stall_every=60.0, stall_seconds=1.0)
    assert stalling.carry(MEGABYTE, 100.0) == 101.0, "the first is a whole period away"
    assert stalling.carry(MEGABYTE, 159.5) == 161.5, "in the midst of a transfer"
    assert stalling.carry(MEGABYTE, 220.25) == 222.0, "offered during one"
    assert stalling.carry(130 * MEGABYTE, 281.0) == 413.0, "two in one transfer"


@given(
    st.lists(st.tuples(st.floats(0, 30), st.integers(0, 5 * MEGABYTE)), max_size=20),
    st.integers(0, 9),
)
def test_arrivals_are_in_order_repeatable_and_never_during_a_stall(
    messages: list[tuple[float, int]], seed: int
) -> None:
    shape = {"jitter": 0.9, "tail": 1.5, "stall_every": 7.0, "stall_seconds": 2.0}
    first, same = (link(seed, bytes_per_second=MEGABYTE, **shape) for _ in range(2))
    now = last = 100.0
    for wait, nbytes in messages:
        now += wait
        arrived = first.carry(nbytes, now)
        assert arrived == same.carry(nbytes, now)
        assert arrived >= max(now, last)
        since = arrived - 100.0
        if nbytes and since >= 7.0:
            assert since % 7.0 == pytest.approx(0) or since % 7.0 >= 2.0 - 1e-6
        last = arrived


def test_how_often_a_connection_breaks() -> None:
    assert all(link(seed).breaks_at() is None for seed in range(100))
    lossy = link(loss=0.3)
    breaks = [lossy.breaks_at() for _ in range(10_000)]
    shares = [share for share in breaks if share is not None]
    assert len(shares) / len(breaks) == pytest.approx(0.3, abs=0.03)
    assert 0 <= min(shares) <= max(shares) <= 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("latency", -1.0),
        ("bytes_per_second", 0.0),
        ("jitter", 1.5),
        ("tail", 1.0),
        ("stall_every", 1.0),
        ("stall_seconds", -1.0),
        ("loss", 2.0),
        ("latency", float("nan")),
    ],
)
def test_shapes_that_cannot_be(name: str, value: float) -> None:
    fields = {"stall_seconds": 1.0} | {name: value}
    with pytest.raises(ValueError, match=name):
        LinkShape(**fields)
