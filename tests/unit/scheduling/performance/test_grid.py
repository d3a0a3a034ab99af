"""Which shapes to measure, and how far the fit to the measurements can be trusted."""

from __future__ import annotations

import importlib
import math
from random import Random
from types import ModuleType
from typing import Any

import pytest
from performancekit import MEDIUM, TRUE, VIDEO

from disagfusion.errors import FailedPreconditionError, InvalidArgumentError
from disagfusion.scheduling.shapes import FEATURES, CostModel, Shape


@pytest.fixture(scope="module")
def grid() -> ModuleType:
    """The module, which takes seconds to import."""
    return importlib.import_module("disagfusion.scheduling.performance.grid")


@pytest.fixture(scope="module")
def pictures(grid: ModuleType) -> Any:
    return grid.Ranges(
        heights=tuple(range(256, 2049, 64)),
        widths=tuple(range(256, 2049, 64)),
        num_inference_steps=(1, 4, 8, 20, 50),
    )


@pytest.fixture(scope="module")
def everything(pictures: Any) -> Any:
    more = {"num_frames": (1, 17, 81), "batch_sizes": (1, 4), "sequence_lengths": (16, 512)}
    return pictures.model_copy(update=more)


def determinant(shapes: list[Shape]) -> float:
    """Return the logarithm of the information's determinant."""
    import numpy as np

    from disagfusion.scheduling.performance.regression import feature_matrix

    x = feature_matrix(shapes)[:, [0, 1, 2, 4, 5, 6]]
    rows = x / (x @ np.array([0.3, 0.01, 0.01, 0.05, 0.8, 0.2]))[:, None]
    sign, value = np.linalg.slogdet(rows.T @ rows)
    return float(value) if sign > 0 else -math.inf


def test_few_runs_tell_all_features_apart(grid: ModuleType, pictures: Any, everything: Any) -> None:
    design = grid.choose_shapes(everything, 7)
    assert len(set(design.shapes)) == 7
    assert design.identified == FEATURES
    assert design.unidentified == ()
    of_pictures = grid.choose_shapes(pictures, 12)
    assert of_pictures.unidentified == ("per_token",)
    one = grid.choose_shapes(grid.Ranges(heights=(512,), widths=(512,)), 5)
    assert one.shapes == (Shape(height=512, width=512),)
    assert one.identified == ("constant",)
    assert len(grid.choose_shapes(everything, 3).identified) == 3


def test_the_choice_identifies_more_than_chance_does(grid: ModuleType, pictures: Any) -> None:
    prior = CostModel(
        constant=0.3,
        per_megapixel=0.01,
        per_megapixel_squared=0.01,
        per_step=0.05,
        per_step_megapixel=0.8,
        per_step_megapixel_squared=0.2,
    )
    candidates = list(pictures.shapes())
    random = Random(0)
    for runs in (6, 8, 12):
        chosen = determinant(list(grid.choose_shapes(pictures, runs, prior=prior).shapes))
        chance = max(determinant(random.sample(candidates, runs)) for _ in range(300))
        assert chosen > chance


def test_the_choice_is_the_same_each_time_and_grows_from_the_front(
    grid: ModuleType, everything: Any
) -> None:
    first = grid.choose_shapes(everything, 12)
    assert grid.choose_shapes(everything, 12) == first
    assert grid.choose_shapes(everything, 8).shapes == first.shapes[:8]
    shuffled = everything.model_copy(update={"heights": tuple(reversed(everything.heights))})
    assert grid.choose_shapes(shuffled, 12) == first


def test_only_what_is_allowed_is_chosen(grid: ModuleType, everything: Any) -> None:
    for shape in grid.choose_shapes(everything, 30).shapes:
        assert shape.height in everything.heights
        assert shape.width in everything.widths
        assert shape.num_frames in everything.num_frames
        assert shape.num_inference_steps in everything.num_inference_steps
        assert shape.batch_size in everything.batch_sizes
        assert shape.sequence_length in everything.sequence_lengths


@pytest.mark.parametrize("runs", [0, -1])
def test_no_run_is_no_design(grid: ModuleType, pictures: Any, runs: int) -> None:
    with pytest.raises(InvalidArgumentError, match=r"maximum_runs: .* at least 1"):
        grid.choose_shapes(pictures, runs)


def measure(shapes: tuple[Shape, ...], noise: float, seed: int = 0) -> list[tuple[Shape, float]]:
    random = Random(seed)
    return [(shape, TRUE.evaluate(shape) * random.gauss(1.0, noise)) for shape in shapes]


def test_twelve_runs_are_enough_for_a_good_model(grid: ModuleType, pictures: Any) -> None:
    found = grid.confidence(measure(grid.choose_shapes(pictures, 12).shapes, 0.01), [MEDIUM])
    assert found.model.evaluate(MEDIUM) == pytest.approx(TRUE.evaluate(MEDIUM), rel=0.02)
    assert found.relative_widths[0] < 0.05
    assert found.degrees_of_freedom == 12 - 6


def test_the_interval_holds_as_often_as_it_says(grid: ModuleType, pictures: Any) -> None:
    shapes = grid.choose_shapes(pictures, 20).shapes
    random = Random(9)
    inside = 0
    for seed in range(40):
        found = grid.confidence(measure(shapes, 0.05, seed), [MEDIUM], level=0.8)
        job = TRUE.evaluate(MEDIUM) * random.gauss(1.0, 0.05)
        inside += abs(job / found.model.evaluate(MEDIUM) - 1.0) <= found.relative_widths[0]
    assert 0.65 <= inside / 40 <= 0.95


def test_what_measurements_cannot_tell_is_infinitely_wide(grid: ModuleType, pictures: Any) -> None:
    four_steps = tuple(
        Shape(height=size, width=size, num_inference_steps=4) for size in range(256, 2049, 128)
    )
    other = MEDIUM.model_copy(update={"num_inference_steps": 4})
    known, longer = grid.confidence(measure(four_steps, 0.01), [other, VIDEO]).relative_widths
    assert known < 0.05
    assert longer == math.inf
    errors = grid.confidence(measure(four_steps, 0.01), []).standard_errors
    assert set(errors) == set(FEATURES)
    assert errors["per_step"] == math.inf
    more = (*four_steps, *grid.choose_shapes(pictures, 12).shapes)
    assert grid.confidence(measure(more, 0.01), []).standard_errors["per_step"] < 0.02
    # As many coefficients as measurements: there is nothing left to judge by.
    few = grid.confidence(measure(four_steps[:3], 0.01), [other])
    assert (few.degrees_of_freedom, few.relative_widths) == (0, (math.inf,))


def test_farther_away_is_less_certain_and_more_runs_are_more_certain(
    grid: ModuleType, pictures: Any
) -> None:
    shapes = grid.choose_shapes(pictures, 12).shapes
    near, far = grid.confidence(measure(shapes, 0.02), [MEDIUM, VIDEO]).relative_widths
    assert near < far
    (again,) = grid.confidence(measure(shapes * 10, 0.02), [MEDIUM]).relative_widths
    assert again < near


def test_measurements_that_are_none_are_refused(grid: ModuleType) -> None:
    with pytest.raises(FailedPreconditionError):
        grid.confidence([], [MEDIUM])
    for seconds in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(InvalidArgumentError, match="measured"):
            grid.confidence([(MEDIUM, seconds)], [MEDIUM])
    with pytest.raises(InvalidArgumentError, match="level"):
        grid.confidence([(MEDIUM, 1.0)], [MEDIUM], level=1.0)
