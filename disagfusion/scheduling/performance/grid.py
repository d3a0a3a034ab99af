"""Which shapes to measure, and how far a fit to the measurements can be trusted.

It imports numpy, scipy and scikit-learn, so only what measures may import it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy import special  # type: ignore[import-untyped]

from disagfusion.errors import FailedPreconditionError, InvalidArgumentError
from disagfusion.scheduling.document import Document, PositiveCount
from disagfusion.scheduling.performance.regression import feature_matrix, independent, regress
from disagfusion.scheduling.performance.settings import PerformanceSettings
from disagfusion.scheduling.shapes import FEATURES, CostModel, Shape

Matrix = NDArray[np.float64]
Choices = Annotated[tuple[PositiveCount, ...], Field(min_length=1)]

# Of each argument: seconds are quadratic in the pixels, so more levels between say little more.
_MAX_LEVELS = 6
# Of the information of a single run: enough to begin with, too little to decide anything.
_BEGINNING = 1e-9
_ESTIMABLE = 1e-6
_TIE = 1e-9


class Ranges(Document):
    """The arguments that may be measured; every combination is allowed.

    Attributes:
        heights: Pixels.
        widths: Pixels.
        num_frames: Frames of a video.
        num_inference_steps: Denoising steps.
        batch_sizes: Pictures or videos of a job.
        sequence_lengths: Tokens of the prompt.
    """

    heights: Choices
    widths: Choices
    num_frames: Choices = (1,)
    num_inference_steps: Choices = (1,)
    batch_sizes: Choices = (1,)
    sequence_lengths: Choices = (1,)

    def shapes(self) -> Iterator[Shape]:
        """Yield every combination of at most six levels of each argument, small ones first."""
        axes = (
            self.heights,
            self.widths,
            self.num_frames,
            self.num_inference_steps,
            self.batch_sizes,
            self.sequence_lengths,
        )
        for height, width, frames, steps, batch, tokens in itertools.product(*map(_levels, axes)):
            yield Shape(
                height=height,
                width=width,
                num_frames=frames,
                num_inference_steps=steps,
                batch_size=batch,
                sequence_length=tokens,
            )


@dataclass(frozen=True, slots=True)
class Design:
    """What to measure.

    Attributes:
        shapes: In the order of what each adds; the first few identify most.
        identified: Features whose coefficients these runs tell apart.
        unidentified: Features that they do not, since too few runs or arguments were allowed.
    """

    shapes: tuple[Shape, ...]
    identified: tuple[str, ...]
    unidentified: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Confidence:
    """How far a fit to measurements can be trusted.

    Attributes:
        model: The fit.
        standard_errors: Of each coefficient by name; infinite where the measurements cannot tell
            it from others.
        relative_widths: For each shape that was asked for, half the width of the prediction
            interval over the prediction; infinite where the measurements say nothing of it.
        noise: Relative standard deviation of the measurements from the fit.
        degrees_of_freedom: Measurements beyond what the coefficients take.
    """

    model: CostModel
    standard_errors: dict[str, float]
    relative_widths: tuple[float, ...]
    noise: float
    degrees_of_freedom: int


def choose_shapes(ranges: Ranges, maximum_runs: int, *, prior: CostModel | None = None) -> Design:
    """Choose shapes whose measurements identify the model best.

    Greedy D-optimal design: each run is the one that raises the determinant of the information
    matrix most (Fedorov, Theory of Optimal Experiments, 1972), the cheapest of equal ones. Errors
    are relative, so a row of features counts over the job's expected seconds.

    Args:
        ranges: What may be measured.
        maximum_runs: How many shapes at most.
        prior: Expected seconds; without it every feature counts as costing alike.

    Raises:
        InvalidArgumentError: No run is allowed.
    """
    if maximum_runs < 1:
        raise InvalidArgumentError("maximum_runs", f"{maximum_runs}", expected="at least 1")
    candidates = _distinct(ranges.shapes())
    x = feature_matrix(candidates)
    usual = np.exp(np.log(x).mean(axis=0))
    cost = (x / usual).sum(axis=1)
    expected = cost if prior is None else x @ np.asarray(prior.coefficients)
    rows = x / expected[:, None]
    columns = independent(rows, range(len(FEATURES)), (), _ESTIMABLE)
    scaled = rows[:, columns] / np.linalg.norm(rows[:, columns], axis=0)
    by_cost = np.argsort(cost, kind="stable")
    chosen = _greedy(scaled[by_cost], min(maximum_runs, len(candidates)))
    picked = by_cost[chosen]
    found = independent(rows[picked], columns, (), _ESTIMABLE)
    return Design(
        shapes=tuple(candidates[row] for row in picked),
        identified=tuple(name for j, name in enumerate(FEATURES) if j in found),
        unidentified=tuple(name for j, name in enumerate(FEATURES) if j not in found),
    )


def confidence(
    measured: Sequence[tuple[Shape, float]], shapes: Sequence[Shape], *, level: float = 0.9
) -> Confidence:
    """Fit measurements, and say how far the fit can be trusted at some shapes.

    The interval is that of weighted linear regression, t·s·√(1 + xᵀ(XᵀX)⁺x) with rows divided by
    predicted seconds. It leaves out that coefficients are not negative, which only makes it wider.

    Args:
        measured: Shapes and seconds.
        shapes: For which to say it.
        level: Probability that a job's seconds lie in the interval.

    Raises:
        InvalidArgumentError: The level is no probability, or seconds are not positive.
        FailedPreconditionError: There are no measurements, or nothing positive fits them.
    """
    if not 0.0 < level < 1.0:
        raise InvalidArgumentError("level", f"{level}", expected="between 0 and 1")
    if not all(0.0 < seconds < math.inf for _, seconds in measured):
        raise InvalidArgumentError("measured", "seconds that are not positive and finite")
    known, seconds = [shape for shape, _ in measured], [value for _, value in measured]
    found = (
        regress(known, seconds, prior=None, settings=PerformanceSettings()) if measured else None
    )
    if found is None:
        raise FailedPreconditionError("there are no measurements that a model fits")
    coefficients = np.asarray(found.model.coefficients)
    x = feature_matrix(known)
    rows = x / (x @ coefficients)[:, None]
    lengths = np.linalg.norm(rows, axis=0)
    inverse, space = _information(rows / lengths)
    freedom = len(measured) - len(space)
    if freedom < 1:
        noise, quantile = math.inf, math.inf
    else:
        noise = float(np.sqrt(np.sum((found.ratios - 1.0) ** 2) / freedom))
        quantile = float(special.stdtrit(freedom, 0.5 + level / 2))

    def variance(row: Matrix) -> float:
        outside = np.linalg.norm(row - space.T @ (space @ row))
        if freedom < 1 or outside > _ESTIMABLE * np.linalg.norm(row):
            return math.inf
        return float(row @ inverse @ row)

    units = np.eye(len(FEATURES))
    asked = feature_matrix(shapes) if shapes else np.empty((0, len(FEATURES)))
    asked = asked / (asked @ coefficients)[:, None] / lengths
    return Confidence(
        model=found.model,
        standard_errors={
            name: _root(variance(units[j]), noise) / float(lengths[j])
            for j, name in enumerate(FEATURES)
        },
        relative_widths=tuple(quantile * _root(1.0 + variance(row), noise) for row in asked),
        noise=noise,
        degrees_of_freedom=max(0, freedom),
    )


def _root(variance: float, noise: float) -> float:
    return math.inf if math.isinf(variance) else math.sqrt(variance) * noise


def _information(rows: Matrix) -> tuple[Matrix, Matrix]:
    """Return the pseudo-inverse of the information and a basis of what the rows can tell."""
    _, sizes, basis = np.linalg.svd(rows, full_matrices=False)
    told = sizes > _ESTIMABLE * sizes[0]
    space = basis[told]
    return (space.T / sizes[told] ** 2) @ space, space


def _greedy(rows: Matrix, count: int) -> list[int]:
    """Choose rows one by one; of equal gains the first row."""
    information = _BEGINNING * np.diag(np.max(rows**2, axis=0))
    left = np.ones(len(rows), dtype=bool)
    chosen: list[int] = []
    for _ in range(count):
        inverse = np.linalg.inv(information)
        gains = np.where(left, np.einsum("ij,jk,ik->i", rows, inverse, rows), -1.0)
        best = int(np.argmax(gains >= gains.max() * (1.0 - _TIE)))
        chosen.append(best)
        left[best] = False
        information = information + np.outer(rows[best], rows[best])
    return chosen


def _levels(choices: Sequence[int]) -> list[int]:
    """Return at most so many different choices, evenly spaced by ratio, both ends included."""
    ordered = sorted(set(choices))
    if len(ordered) <= _MAX_LEVELS:
        return ordered
    low, high = math.log(ordered[0]), math.log(ordered[-1])
    aims = [low + (high - low) * step / (_MAX_LEVELS - 1) for step in range(_MAX_LEVELS)]
    return sorted({min(ordered, key=lambda c: abs(math.log(c) - aim)) for aim in aims})


def _distinct(shapes: Iterator[Shape]) -> list[Shape]:
    """Return one shape of each cost, the one nearest to a square."""
    best: dict[tuple[float, ...], Shape] = {}
    for shape in shapes:
        known = best.setdefault(shape.features, shape)
        if abs(math.log(shape.height / shape.width)) < abs(math.log(known.height / known.width)):
            best[shape.features] = shape
    return list(best.values())
