"""Room for outputs: asked for, given before it is asked for, or not there."""

from __future__ import annotations

from stagerig import GATEWAY, Rig

from disagfusion.stage.actions import GiveSpace


def test_a_full_held_store_blocks_the_engine_until_something_is_released(rig: Rig) -> None:
    rig.finish(rig.start("a"), nbytes=8192)
    run = rig.start("b")
    rig.do(rig.machine.engine_needs_space(run, 64, rig.now))
    assert rig.machine.activity == "blocked"
    todo = rig.do(rig.machine.release("a", 0, 1, rig.now))
    assert GiveSpace(run, 0, nbytes=64) in todo
    assert rig.machine.activity == "busy"


def test_an_engine_is_given_what_the_last_output_of_that_form_took(rig: Rig) -> None:
    first, second = rig.grants()
    rig.finish(rig.start("a", first), nbytes=100)
    run = rig.start("b", second)
    (early,) = [a for a in rig.done if isinstance(a, GiveSpace) and a.run_id == run]
    assert early.nbytes == 100
    used = rig.machine.held.used
    assert rig.do(rig.machine.engine_needs_space(run, 90, rig.now)) == [], "it is on its way"
    todo = rig.do(rig.machine.engine_needs_space(run, 300, rig.now))
    assert [a.nbytes for a in todo if isinstance(a, GiveSpace)] == [300]
    assert rig.machine.held.used == used + 192, "the smaller one was taken back"
    rig.finish(run, nbytes=300)
    assert rig.told("done")[1].size_bytes == 300


def test_another_form_is_not_given_the_same_space(rig: Rig) -> None:
    first, second = rig.grants()
    rig.finish(rig.start("a", first), nbytes=100)
    message = rig.assignment("b", second)
    message.generation.height = 512
    rig.do(rig.machine.assign(GATEWAY, message, rig.now))
    rig.deliver("b", second)
    assert not [a for a in rig.done if isinstance(a, GiveSpace) and a.run_id == rig.run.run_id]


def test_an_output_larger_than_the_store_fails_at_once(rig: Rig) -> None:
    run = rig.start("a")
    todo = rig.do(rig.machine.engine_needs_space(run, 8193, rig.now))
    assert [a.offset for a in todo if isinstance(a, GiveSpace)] == [-1]
