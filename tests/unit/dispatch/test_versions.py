"""Jobs keep to one version of the model, unless nobody of it takes work any more."""

from __future__ import annotations

from dataclasses import replace

import pytest
from dispatchkit.desk import TRANSFERRING, WAITING, D, Desk, E, K, assigned

from disagfusion.dispatch import actions as act
from disagfusion.dispatch import events as ev
from disagfusion.jobs.model import JobState

DRAINING, LOADING, READY = (
    ev.WorkerState.DRAINING,
    ev.WorkerState.LOADING,
    ev.WorkerState.READY,
)


def become(desk: Desk, name: str, state: ev.WorkerState, version: str = "v1") -> None:
    stage = {"e": E, "d": D, "k": K}[name[0]]
    info = replace(desk.info(name, stage, version=version), state=state)
    desk.give(ev.WorkerStateChanged(info))


def rolled_out() -> Desk:
    """A job of v1 that waits for a DiT, and all stages of both versions."""
    desk = Desk()
    for name, stage in (("e1", E), ("d1", D), ("k1", K)):
        desk.connect(name, stage, version="v1")
    become(desk, "d1", DRAINING)
    desk.submit("j")
    desk.finish("e1", "j", E)
    for name, stage in (("e2", E), ("d2", D), ("k2", K)):
        desk.connect(name, stage, version="v2")
    assert desk.state("j") == (JobState.DENOISING, WAITING, 1)
    return desk


def test_versions_are_not_mixed() -> None:
    desk = Desk()
    desk.connect("e", E, version="v1")
    desk.connect("d2", D, version="v2")
    desk.connect("k2", K, version="v2")
    desk.connect("e2", E, version="v2")
    desk.submit("j")
    # The version that has all its stages is preferred.
    assert assigned(desk.log) == [("j", "e2")]
    desk.give(ev.WorkerLost("d2", "d2#1"))
    desk.connect("d1", D, version="v1")
    desk.finish("e2", "j", E)
    assert desk.state("j") == (JobState.DENOISING, WAITING, 1)


def test_a_version_that_vanishes_lets_its_jobs_start_again() -> None:
    desk = Desk()
    desk.connect("e1", E, version="v1")
    desk.submit("j")
    desk.finish("e1", "j", E)
    desk.connect("e2", E, version="v2")
    desk.connect("d2", D, version="v2")
    desk.connect("k2", K, version="v2")
    assert desk.state("j") == (JobState.DENOISING, WAITING, 1)
    found = desk.until_wakeup()
    assert desk.now == pytest.approx(1030.0)
    assert act.Release("e1", "j", E, 1) in found
    assert assigned(found) == [("j", "e2")]
    assert desk.state("j") == (JobState.ENCODING, TRANSFERRING, 2)
    told = [a.transition.message for a in found if isinstance(a, act.SaveTransition)]
    assert "no worker of model version v1 takes work any more" in told


@pytest.mark.parametrize("state", [DRAINING, ev.WorkerState.QUARANTINED])
def test_a_version_whose_workers_take_no_work_lets_its_jobs_start_again(
    state: ev.WorkerState,
) -> None:
    desk = rolled_out()
    become(desk, "d1", state)
    found = desk.until_wakeup()
    assert desk.now == pytest.approx(1030.0)
    assert assigned(found) == [("j", "e2")], "a version of which all stages take work"


def test_a_worker_that_loads_is_waited_for_and_not_for_ever() -> None:
    desk = rolled_out()
    become(desk, "d1", LOADING)
    while not assigned(desk.until_wakeup()):
        assert desk.now < 1300.0
    assert desk.now == pytest.approx(1300.0, abs=1.0)
    assert desk.log[-1].worker == "e2"  # type: ignore[union-attr]


def test_a_worker_that_gets_ready_has_its_jobs_and_starts_the_clock_anew() -> None:
    desk = rolled_out()
    become(desk, "d1", LOADING)
    while desk.now < 1200.0:
        assert not assigned(desk.until_wakeup())
    desk.now += 1.0
    become(desk, "d1", READY)
    assert assigned(desk.log)[-1] == ("j", "d1")
    desk.give(ev.StageFailed("d1", "d1#1", "j", 1, D, ev.FailureKind.REFUSED, "why"))
    become(desk, "d1", LOADING)
    begin = desk.now
    while not assigned(desk.until_wakeup()):
        assert desk.now < begin + 300.0
    assert desk.now >= begin + 300.0


def test_without_another_version_that_takes_work_they_wait() -> None:
    desk = rolled_out()
    become(desk, "d2", LOADING, "v2")
    for _ in range(20):
        assert not assigned(desk.until_wakeup())
    become(desk, "d2", READY, "v2")
    assert assigned(desk.until_wakeup()) == [("j", "e2")]


def test_new_jobs_are_not_begun_with_a_version_that_lacks_a_stage() -> None:
    desk = rolled_out()
    for number in range(3):
        desk.submit(f"new-{number}")
    # The third has to wait: both slots of the encoder that can go on are taken.
    assert [worker for _, worker in assigned(desk.log)[1:]] == ["e2", "e2"]
    # With no version complete, whoever does the stage will do.
    become(desk, "k2", DRAINING, "v2")
    assert assigned(desk.log)[-1] == ("new-2", "e1")
