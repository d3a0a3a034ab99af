"""Files that people write: what is read, and how mistakes in them are named."""

from __future__ import annotations

import pytest

from disagfusion.errors import InvalidArgumentError
from disagfusion.scheduling.demand import Demand
from disagfusion.scheduling.document import parse
from disagfusion.scheduling.planner import plan
from disagfusion.scheduling.profile import Profile


def profile(stages: str) -> Profile:
    return parse(Profile, f"pools: {{a: {{accelerators: 8}}}}\nstages: {stages}\n", name="p.yaml")


def test_merge_keys_are_taken_over_and_overridden() -> None:
    found = profile(
        "\n  encoder: &base {min: 2, pools: {a: {seconds: 1}}}"
        "\n  dit: &more {<<: *base, min: 3, max: 4}"
        "\n  decoder: {max: 5, <<: *more}"
    )
    assert [(stage.min, stage.max) for stage in found.stages.values()] == [
        (2, None),
        (3, 4),
        (3, 5),
    ]
    assert all(stage.pools["a"].seconds == 1.0 for stage in found.stages.values())


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("{dit: {min: 1, min: 2, pools: {a: {seconds: 1}}}}", "'min' is there twice"),
        ("{dit: {pools: {a: {seconds: 1}}}, [dit]: 1}", "a key that is no text"),
        ("{dit: {pools: {a: {seconds: true}}}}", "seconds: expected a number, not True"),
        ("{dit: {pools: {a: {model: {per_step: false}}}}}", "per_step: expected a number, not Fa"),
        ("{dit: {pools: {a: {seconds: 1.0e-320}}}}", "seconds: Input should be greater than"),
        ("{dit: {pools: {a: {seconds: 0}}}}", "seconds: Input should be greater than"),
        (
            "{dit: {pools: {a: {model: {per_step: 1.0e-320}}}}}",
            "pools.a: expected a coefficient of",
        ),
        ("{dit: {pools: {a: {model: {}}}}}", "pools.a: expected a coefficient of"),
    ],
)
def test_what_is_wrong_is_named(stages: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        profile(stages)
    assert raised.value.field.startswith("p.yaml")
    assert message in raised.value.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "p.yaml: the file is empty (expected fields: pools, stages)"),
        ("# nothing yet\n", "p.yaml: the file is empty (expected fields: pools, stages)"),
        ("[1]", "p.yaml: a list (expected fields: pools, stages)"),
        ("{a: " * 5000 + "1" + "}" * 5000, "p.yaml: nested too deeply (expected YAML)"),
    ],
)
def test_what_is_no_document_at_all(text: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as raised:
        parse(Profile, text, name="p.yaml")
    assert raised.value.message == message


def test_an_empty_file_of_which_no_field_is_needed_names_all() -> None:
    with pytest.raises(InvalidArgumentError, match="expected fields: shapes, rate, headroom"):
        parse(Demand, "", name="d.yaml")


def test_the_least_seconds_can_be_planned_with() -> None:
    found = plan(profile("{dit: {pools: {a: {seconds: 1.0e-9}}}}"))
    assert found.throughput == pytest.approx(8e9)
    model = "{dit: {pools: {a: {model: {per_megapixel_squared: 1.0e-30}}}}}"
    assert plan(profile(model), Demand()).throughput > 8e30


COSTS = (
    "constant, per_megapixel, per_megapixel_squared, per_token, per_step, per_step_megapixel,"
    " per_step_megapixel_squared"
)


@pytest.mark.parametrize(
    ("stages", "path", "known"),
    [
        ("{dit: {pools: {a: {weight_gib: 3}}}}", "a.weight_gib", "seconds, model, p95_ratio,"),
        ("{dit: {pools: {a: {model: {per_stp: 1}}}}}", "a.model.per_stp", COSTS),
        ("{dit: {pools: {a: {seconds: 1, memory_gib: {x: 1}}}}}", "CostModel.x", COSTS),
    ],
)
def test_a_field_that_there_is_not_brings_those_that_there_are(
    stages: str, path: str, known: str
) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        profile(stages)
    assert f"{path}: there is no such field (expected {known}" in refused.value.message


def test_what_is_missing_may_be_what_was_misspelt() -> None:
    with pytest.raises(
        InvalidArgumentError, match=r"poolz: there is no such field \(expected .*pools"
    ):
        parse(Profile, "poolz: {}\nstages: {dit: {pools: {a: {seconds: 1}}}}", name="p.yaml")
