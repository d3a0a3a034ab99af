"""What waits for an engine that is started again."""

from __future__ import annotations

import pytest
from stagerig import Rig, failures

from disagfusion.stage.actions import EngineInfo


@pytest.fixture
def waiting(rig: Rig) -> Rig:
    """The engine has died, "b" waits for the next one, which is being started."""
    first, second = rig.grants()
    rig.start("a", first)
    rig.assign("b", second)
    rig.deliver("b", second)
    rig.do(rig.machine.engine_lost("killed", rig.now))
    assert failures(rig) == [("a", 1, "ENGINE_LOST")]
    rig.now = rig.machine.next_wakeup() or 0.0
    rig.do(rig.machine.tick(rig.now))
    return rig


def test_a_job_waits_for_an_engine_that_loads(waiting: Rig) -> None:
    waiting.do(waiting.machine.engine_loaded(EngineInfo("{}", "v1", "cpu", 1, 1), waiting.now))
    assert waiting.run.assignment.job_id == "b"
    assert len(failures(waiting)) == 1


def test_a_job_is_handed_back_when_the_model_cannot_be_loaded(waiting: Rig) -> None:
    waiting.do(waiting.machine.engine_load_failed("out of memory", waiting.now))
    assert failures(waiting)[1:] == [("b", 1, "REFUSED")]
    assert waiting.told("failed")[1].message == "out of memory"


def test_a_job_is_handed_back_when_the_engine_dies_before_it_has_loaded(waiting: Rig) -> None:
    waiting.do(waiting.machine.engine_lost("killed again", waiting.now))
    assert failures(waiting)[1:] == [("b", 1, "REFUSED")]
    assert waiting.machine.slots.free == 2
