from __future__ import annotations

from typing import Any

import pytest
from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.scaling.bounds import bounds_at
from disagfusion_operator.scaling.profiles import bounded, guessed, read_profile

from disagfusion.errors import InvalidArgumentError
from disagfusion.scheduling.shapes import Shape

from .members import pool, profile

SPEC: dict[str, Any] = {
    "model": {"builtin": "digits"},
    "pools": {
        "a": pool("a", accelerators=2, memory="40Gi", costPerHour="2.5"),
        "new": pool("new", speed="0.5"),
    },
    "stages": {"dit": {"minReplicas": 2, "maxReplicas": 5}, "encoder": {"pools": ["a"]}},
}


def made(spec: dict[str, Any], *pools: str, **seconds: Any) -> Any:
    parsed = Spec.model_validate(spec)
    found = read_profile(profile(pools or ("a",), **seconds)["inline"])
    return bounded(parsed, found, bounds_at(parsed, 0.0))


def test_the_specification_says_what_pools_and_stages_are_like() -> None:
    found = made(SPEC, encoder=1.0, dit=8.0, decoder=2.0)
    assert found.pools["a"].memory_gib == 40
    assert found.pools["a"].cost_per_hour == 2.5
    assert found.stages["dit"].pools["a"].accelerators == 2
    assert (found.stages["dit"].min, found.stages["dit"].max) == (2, 5)
    assert list(found.stages["encoder"].pools) == ["a"]


def test_a_pool_that_the_profile_does_not_know_is_as_fast_as_its_speed_says() -> None:
    found = made(SPEC, encoder=1.0, dit=8.0, decoder=2.0)
    assert found.stages["dit"].pools["new"].seconds == 16.0
    assert found.stages["dit"].pools["a"].seconds == 8.0


def test_speed_divides_every_coefficient_of_a_model() -> None:
    parsed = Spec.model_validate(SPEC)
    inline = profile(("a",), encoder=1.0, dit=8.0, decoder=2.0)["inline"]
    inline["stages"]["dit"]["pools"]["a"] = {"model": {"constant": 1.0, "per_step": 0.25}}
    found = bounded(parsed, read_profile(inline), bounds_at(parsed, 0.0))
    shape = Shape(num_inference_steps=20)
    assert found.stages["dit"].pools["a"].seconds_of(shape) == 6.0
    assert found.stages["dit"].pools["new"].seconds_of(shape) == 12.0


def test_a_stage_stays_away_from_a_pool_where_the_profile_has_no_costs_of_it() -> None:
    found = made(SPEC, "a", "new", encoder=1.0, dit=8.0, decoder={"a": 2.0})
    assert list(found.stages["decoder"].pools) == ["a"]
    # Unless it is named: then the speed says how long it takes.
    named = {**SPEC, "stages": {"decoder": {"pools": ["new"]}}}
    found = made(named, "a", "new", encoder=1.0, dit=8.0, decoder={"a": 2.0})
    assert found.stages["decoder"].pools["new"].seconds == 4.0


def test_what_is_missing_is_named() -> None:
    with pytest.raises(InvalidArgumentError, match=r"spec\.scaling\.profile\.stages: decoder"):
        made(SPEC, encoder=1.0, dit=8.0)
    elsewhere = {**SPEC, "pools": {"a": pool("a"), "b": pool("b")}}
    with pytest.raises(InvalidArgumentError, match=r"stages\.decoder\.pools.*none of a, b"):
        made(elsewhere, "a", "b", "c", encoder=1.0, dit=8.0, decoder={"c": 2.0})
    with pytest.raises(InvalidArgumentError, match=r"spec\.scaling\.profile: stages"):
        read_profile("pools: {a: {accelerators: 1}}\nstages: 5")


def test_without_a_profile_the_first_jobs_are_one() -> None:
    parsed = Spec.model_validate(SPEC)
    seconds = {"encoder": 1.0, "dit": 6.0, "decoder": 2.0}
    found = guessed(parsed, seconds, bounds_at(parsed, 0.0))
    assert found.stages["dit"].pools["a"].seconds == 6.0
    assert found.stages["dit"].pools["new"].seconds == 12.0
    assert found.stages["dit"].pools["a"].accelerators == 2


def test_only_pods_that_change_their_stage_load_ahead() -> None:
    inline = profile("ab", encoder=1.0, dit=6.0, decoder=2.0)["inline"]
    for one in inline["pools"].values():
        one["load_ahead"] = True
    pools = {"a": {**pool("a"), "flex": {}}, "b": pool("b"), "c": {**pool("c"), "flex": {}}}
    spec = Spec.model_validate({"model": {"builtin": "digits"}, "pools": pools})
    found = bounded(spec, read_profile(inline), bounds_at(spec, 0.0))
    assert {name: one.load_ahead for name, one in found.pools.items()} == {
        "a": True, "b": False, "c": False,
    }  # fmt: skip
