"""Of several operators one acts; another takes over when it is gone, and not before."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from disagfusion_operator.k8s.kinds import LEASE
from disagfusion_operator.k8s.lease import Election, LeaseTimes
from disagfusion_operator.k8s.port import Object
from fakes import FakeClock, FakeCluster

from disagfusion.errors import AbortedError, UnavailableError

TIMES = LeaseTimes(duration=15.0, renew=10.0, retry=0.0)


class Candidates:
    """Operators that compete for one Lease, each with a clock of its own."""

    def __init__(self, *names: str) -> None:
        self.cluster = FakeCluster()
        self.clocks = {name: FakeClock(float(index * 1000)) for index, name in enumerate(names)}
        self.of = {name: self.make(name) for name in names}

    def make(self, name: str) -> Election:
        return Election(
            self.cluster, "system", "operator", name, TIMES, self.clocks[name],
            lambda: datetime(2026, 1, 1, tzinfo=UTC),
        )  # fmt: skip

    def later(self, seconds: float) -> None:
        for clock in self.clocks.values():
            clock.now += seconds

    def lease(self) -> Object:
        found: Object = self.cluster.peek(LEASE, "system", "operator")["spec"]
        return found


async def test_the_first_wins_and_the_others_stand_by() -> None:
    both = Candidates("a", "b")
    assert await both.of["a"].try_once()
    assert not await both.of["b"].try_once()
    assert both.of["a"].leads
    assert not both.of["b"].leads
    for _ in range(10):
        both.later(5)
        assert await both.of["a"].try_once()
        assert not await both.of["b"].try_once()
    assert both.lease()["holderIdentity"] == "a"
    assert both.lease()["leaseTransitions"] == 0


async def test_a_silent_leader_stops_before_another_begins() -> None:
    both = Candidates("a", "b")
    await both.of["a"].try_once()
    await both.of["b"].try_once()
    both.cluster.away = UnavailableError("cut off")
    both.later(9)
    assert await both.of["a"].try_once(), "it was renewed nine seconds ago"
    both.later(2)
    assert not await both.of["a"].try_once()
    both.cluster.away = None
    both.later(3)
    assert not await both.of["b"].try_once()
    both.later(2)
    assert await both.of["b"].try_once()
    assert not await both.of["a"].try_once()
    assert both.lease()["leaseTransitions"] == 1


async def test_who_has_just_come_waits_for_a_whole_lease_whatever_it_says() -> None:
    both = Candidates("a", "b")
    await both.of["a"].try_once()
    both.later(1000)
    late = both.make("b")
    assert not await late.try_once()
    both.later(14)
    assert not await late.try_once()
    both.later(2)
    assert await late.try_once()


async def test_a_leader_that_ends_lets_another_begin_at_once() -> None:
    both = Candidates("a", "b")
    await both.of["a"].try_once()
    await both.of["b"].try_once()
    await both.of["a"].release()
    assert not both.of["a"].leads
    assert both.lease()["holderIdentity"] == ""
    assert await both.of["b"].try_once()
    await both.of["a"].release()
    assert both.lease()["holderIdentity"] == "b"


async def test_of_two_that_take_it_at_the_same_time_one_has_it() -> None:
    both = Candidates("a", "b")
    await both.of["a"].try_once()
    await both.of["b"].try_once()
    both.later(20)
    third = both.make("b")
    await third.try_once()
    both.later(20)
    original = both.cluster.replace

    async def slow(manifest: Object) -> Object:
        await asyncio.sleep(0)
        return await original(manifest)

    both.cluster.replace = slow  # type: ignore[method-assign]
    await both.of["b"].try_once()
    both.later(20)
    await asyncio.gather(third.try_once(), both.of["b"].try_once())
    held = [one for one in (third, both.of["b"]) if one.leads]
    assert len(held) <= 1


async def test_keep_ends_when_the_office_is_lost() -> None:
    one = Candidates("a")
    await one.of["a"].win()
    keeping = asyncio.create_task(one.of["a"].keep())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not keeping.done()

    async def taken(manifest: Object) -> Object:
        one.later(4)
        raise AbortedError("the object has been modified")

    one.cluster.replace = taken  # type: ignore[method-assign]
    async with asyncio.timeout(5):
        await keeping
    assert not one.of["a"].leads


@pytest.mark.parametrize("seconds", [2.9, 8.9, 9.9])
async def test_a_try_that_hangs_does_not_outlast_the_office(
    seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tries fail at once until so long after the last renewal; then one gets no answer."""
    one = Candidates("a")
    election, clock = one.of["a"], one.clocks["a"]
    election._times = LeaseTimes(duration=15.0, renew=10.0, retry=3.0)
    await election.win()
    won, limits = clock.now, [0.0]

    async def sleep(delay: float) -> None:
        clock.now += delay

    @contextlib.asynccontextmanager
    async def timeout(limit: float) -> AsyncIterator[None]:
        limits.append(limit)
        yield

    async def replace(manifest: Object) -> Object:
        if clock.now < won + seconds:
            raise UnavailableError("away")
        clock.now += limits[-1]
        raise TimeoutError

    one.cluster.replace = replace  # type: ignore[method-assign]
    monkeypatch.setattr("disagfusion_operator.k8s.lease.asyncio.sleep", sleep)
    monkeypatch.setattr("disagfusion_operator.k8s.lease.asyncio.timeout", timeout)
    await election.keep()
    assert not election.leads
    assert clock.now - won == pytest.approx(10.0)


async def test_who_only_writes_on_the_lease_takes_nothing() -> None:
    one = Candidates("a")
    await one.of["a"].try_once()
    await one.cluster.annotate(LEASE, "system", "operator", {"seen": "yes"})
    one.later(2)
    assert await one.of["a"].try_once()
    one.later(2)
    assert await one.of["a"].try_once()
    assert one.of["a"].renewed == one.clocks["a"].now


async def test_renewing_is_one_call() -> None:
    one = Candidates("a")
    await one.of["a"].try_once()
    one.cluster.calls.clear()
    for _ in range(5):
        one.later(2)
        assert await one.of["a"].try_once()
    assert one.cluster.calls == [("replace", "leases", "operator")] * 5


@pytest.mark.parametrize("renewals", [0, 3])
async def test_release_is_no_hindrance_where_nobody_answers(renewals: int) -> None:
    one = Candidates("a")
    await one.of["a"].try_once()
    for _ in range(renewals):
        await one.of["a"].try_once()
    one.cluster.away = UnavailableError("gone")
    await one.of["a"].release()
    assert not one.of["a"].leads
