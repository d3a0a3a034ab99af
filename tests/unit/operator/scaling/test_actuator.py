from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from disagfusion_operator.scaling.actuator import Actuator, affordable, gradual
from disagfusion_operator.scaling.fleet import Account, read_accounts
from disagfusion_operator.scaling.view import Key
from hypothesis import given
from hypothesis import strategies as st

from disagfusion.errors import UnavailableError
from disagfusion.scheduling.decision import Place

from .members import BEGIN, COST, Pod, pool
from .world import World

DIT, ENCODER, DECODER = Place("dit", "a"), Place("encoder", "a"), Place("decoder", "a")
KEY = Key("default", "p")


def world(ready: int, asked: int | None = None) -> tuple[World, Mapping[Place, Any]]:
    found = World()
    member = found.add("p", {"pools": {"a": pool("a")}})
    member.deployments[DIT]["spec"]["replicas"] = ready if asked is None else asked
    for number in range(ready):
        name = f"p-dit-a-{number}"
        found.pods[name] = Pod(
            name, KEY, DIT, BEGIN + number, node="n", ready_at=BEGIN + number + 5
        )
    found.now = BEGIN + 60
    return found, member.deployments


def accounts(found: World, deployments: Mapping[Place, Any]) -> dict[Place, Account]:
    pods = [pod.manifest(found.now) for pod in found.pods.values()]
    return read_accounts(pods, deployments, {})


def marked(found: World) -> set[str]:
    return {name for name, pod in found.pods.items() if COST in pod.annotations}


async def shrunk(
    found: World, deployments: Mapping[Place, Any], count: int, **seconds: float
) -> list[tuple[Any, ...]]:
    async def remaining() -> Mapping[str, float]:
        return {f"p-dit-a-{name[1:]}": value for name, value in seconds.items()}

    found.settle = lambda: None  # type: ignore[method-assign]  # what is marked stays to be seen
    actuator = Actuator(found, "default")
    await actuator.shrink(deployments, accounts(found, deployments), {DIT: count}, remaining)
    return found.calls


async def test_idle_pods_go_before_those_that_work() -> None:
    found, deployments = world(4)
    calls = await shrunk(found, deployments, 2, n0=5.0, n2=9.0)
    assert marked(found) == {"p-dit-a-1", "p-dit-a-3"}
    assert calls[-1] == ("scale", "p-dit-a", 2)


async def test_of_those_that_work_go_first_who_will_have_done_soonest() -> None:
    found, deployments = world(4)
    await shrunk(found, deployments, 2, n0=5.0, n1=1.0, n2=9.0, n3=3.0)
    assert marked(found) == {"p-dit-a-1", "p-dit-a-3"}


async def test_where_nothing_is_known_the_youngest_goes() -> None:
    found, deployments = world(3)
    await shrunk(found, deployments, 2)
    assert marked(found) == {"p-dit-a-2"}


async def test_nobody_has_to_be_chosen_where_all_go() -> None:
    found, deployments = world(3)
    assert await shrunk(found, deployments, 0) == [("scale", "p-dit-a", 0)]


async def test_marks_of_an_earlier_choice_are_taken_away() -> None:
    found, deployments = world(3)
    found.pods["p-dit-a-0"].annotations[COST] = "-1"
    await shrunk(found, deployments, 2, n0=50.0, n2=60.0)
    assert marked(found) == {"p-dit-a-1"}


async def test_a_pod_that_is_gone_already_is_no_problem() -> None:
    found, deployments = world(3)
    before = accounts(found, deployments)
    del found.pods["p-dit-a-2"]

    async def remaining() -> Mapping[str, float]:
        return {}

    actuator = Actuator(found, "default")
    assert await actuator.shrink(deployments, before, {DIT: 2}, remaining) == [DIT]


async def test_what_was_written_is_believed_until_the_object_is_newer() -> None:
    found, deployments = world(3)
    stale = {
        DIT: {
            **deployments[DIT],
            "metadata": {**deployments[DIT]["metadata"]},
            "spec": {"replicas": 3},
        }
    }
    actuator = Actuator(found, "default")
    await actuator.grow(stale, accounts(found, stale), {DIT: 5})
    assert actuator.asked(stale)[DIT] == 5
    assert actuator.foreign(stale) == {}
    assert actuator.asked(deployments)[DIT] == 5
    deployments[DIT]["spec"]["replicas"] = 7
    deployments[DIT]["metadata"]["generation"] += 1
    assert actuator.asked(deployments)[DIT] == 7
    assert actuator.foreign(deployments) == {DIT: 7}
    assert actuator.foreign(deployments) == {}  # told once


async def test_a_write_of_which_nothing_is_known_is_neither_believed_nor_anothers() -> None:
    found, deployments = world(3)
    actuator = Actuator(found, "default")

    def lost(call: tuple[Any, ...]) -> None:
        deployments[DIT]["spec"]["replicas"] = 5
        deployments[DIT]["metadata"]["generation"] += 1
        raise UnavailableError("the connection broke")

    found.failing = lost
    with pytest.raises(UnavailableError):
        await actuator.grow(deployments, accounts(found, deployments), {DIT: 5})
    assert actuator.asked(deployments)[DIT] == 5
    assert actuator.foreign(deployments) == {}


async def test_into_one_that_was_made_anew_nothing_was_written() -> None:
    found, deployments = world(3)
    metadata = deployments[DIT]["metadata"]
    metadata["uid"] = "first"
    actuator = Actuator(found, "default")
    await actuator.grow(deployments, accounts(found, deployments), {DIT: 5})
    anew = {
        DIT: {
            **deployments[DIT],
            "metadata": {**metadata, "uid": "second", "generation": 1},
            "spec": {"replicas": 0},
        }
    }
    assert actuator.asked(anew)[DIT] == 0
    assert actuator.foreign(anew) == {}
    await actuator.grow(anew, accounts(found, anew), {DIT: 5})
    assert actuator.asked(anew)[DIT] == 5


async def test_what_whoever_takes_it_away_wrote_is_no_strangers() -> None:
    found, deployments = world(3)
    actuator = Actuator(found, "default")
    await actuator.grow(deployments, accounts(found, deployments), {DIT: 5})
    # Its pool becomes another, and the same again before its pods have finished.
    assert actuator.foreign({}) == {}
    deployments[DIT]["spec"]["replicas"] = 0
    deployments[DIT]["metadata"]["generation"] += 1
    assert actuator.foreign(deployments) == {}
    assert actuator.asked(deployments)[DIT] == 0


def grown(
    asked: Mapping[Place, int], wanted: Mapping[Place, int], free: int, budget: int, each: int = 1
) -> dict[Place, int]:
    return affordable(
        {place: Account(count) for place, count in asked.items()},
        wanted,
        dict.fromkeys(wanted, each),
        dict.fromkeys(wanted, "a"),
        {"a": free},
        budget,
    )


NONE = {ENCODER: 0, DIT: 0, DECODER: 0}
WANTED = {ENCODER: 1, DIT: 6, DECODER: 1}


def test_all_start_at_once_where_there_is_room() -> None:
    assert grown(NONE, WANTED, 8, 8) == WANTED


def test_each_stage_gets_its_first_before_another_its_second() -> None:
    assert grown(NONE, WANTED, 3, 9) == {ENCODER: 1, DIT: 1, DECODER: 1}
    assert grown({ENCODER: 1, DIT: 6, DECODER: 0}, WANTED, 9, 0) == {}


@given(
    *[st.fixed_dictionaries({place: st.integers(0, 6) for place in NONE})] * 2,
    st.integers(-3, 12),
    st.integers(-3, 12),
    st.integers(1, 3),
)
def test_no_more_is_asked_for_than_there_is_room(
    asked: dict[Place, int], wanted: dict[Place, int], free: int, budget: int, each: int
) -> None:
    found = grown(asked, wanted, free, budget, each)
    more = sum(count - asked[place] for place, count in found.items()) * each
    assert more <= max(0, min(free, budget))
    assert all(asked[place] < count <= wanted[place] for place, count in found.items())
    lacking = sum(max(0, wanted[place] - asked[place]) for place in NONE) * each - more
    # What is left out does not fit.
    assert lacking == 0 or min(free, budget) - more < each


def at(asked: int, ready: int, leaving: int = 0) -> Account:
    pods = [
        Pod(f"p{i}", KEY, DIT, BEGIN, node="n", ready_at=BEGIN if i < ready else None).manifest(
            BEGIN + 9
        )
        for i in range(asked)
    ]
    gone = [
        Pod(f"g{i}", KEY, DIT, BEGIN, node="n", ready_at=BEGIN, leaves_at=BEGIN + 9).manifest(BEGIN)
        for i in range(leaving)
    ]
    deployment = {"metadata": {"name": "p"}, "spec": {"replicas": asked}}
    return read_accounts([*pods, *gone], {DIT: deployment}, {})[DIT]


ELSEWHERE = Place("dit", "b")
LEAST = {"encoder": 1, "dit": 1}


def test_the_last_of_a_stage_stays_until_another_is_ready() -> None:
    wanted = {DIT: 0, ELSEWHERE: 1, ENCODER: 1}
    others = {ENCODER: at(2, 2)}
    accounts = {DIT: at(2, 2), ELSEWHERE: at(0, 0), **others}
    assert gradual(accounts, wanted, LEAST, growing=False) == {DIT: 1, ELSEWHERE: 1, ENCODER: 1}
    accounts = {DIT: at(1, 1), ELSEWHERE: at(1, 0), **others}
    assert gradual(accounts, wanted, LEAST, growing=False)[DIT] == 1
    accounts = {DIT: at(1, 1), ELSEWHERE: at(1, 1), **others}
    assert gradual(accounts, wanted, LEAST, growing=False) == wanted


def test_it_goes_where_nothing_else_will_ever_make_room() -> None:
    wanted = {DIT: 0, ELSEWHERE: 1, ENCODER: 1}
    accounts = {DIT: at(1, 1), ELSEWHERE: at(0, 0), ENCODER: at(1, 1)}
    assert gradual(accounts, wanted, LEAST, growing=False) == wanted
    assert gradual(accounts, wanted, LEAST, growing=True)[DIT] == 1
    accounts[ENCODER] = at(1, 1, leaving=1)
    assert gradual(accounts, wanted, LEAST, growing=False)[DIT] == 1


def test_all_leave_where_all_are_to_leave() -> None:
    accounts = {DIT: at(2, 2), ENCODER: at(2, 2)}
    assert gradual(accounts, {DIT: 0, ENCODER: 0}, LEAST, growing=True) == {DIT: 0, ENCODER: 0}
