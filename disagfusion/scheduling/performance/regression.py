"""The regression itself. It imports numpy and scikit-learn, so only a fit may import it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LinearRegression

from disagfusion.scheduling.performance.features import REFERENCE_SHAPES
from disagfusion.scheduling.performance.settings import PerformanceSettings
from disagfusion.scheduling.shapes import FEATURES, CostModel, Shape

Matrix = NDArray[np.float64]

SECONDS = FEATURES
PEAK = tuple(name for name in FEATURES if "step" not in name)
"""Steps run one after the other in the same memory."""

# Which feature goes first where the samples do not need all: quadratic before linear, and the
# DiT's, which has the largest share, last.
_DISPENSABLE = (
    "per_megapixel_squared",
    "per_step_megapixel_squared",
    "per_token",
    "per_step",
    "per_megapixel",
    "per_step_megapixel",
    "constant",
)
_MIN_INDEPENDENCE = 1e-6
_ROUNDS = 30
_CONVERGED = 1e-7
# In spreads, and for the prior as a relative deviation: beyond it the influence does not grow.
_HUBER = 2.5
_PRIOR_HUBER = 0.25
_LEAST_SPREAD = 0.01
# At which the prior weighs what the settings say.
_USUAL_NOISE = 0.05
# Keep weights finite: where a prediction tends to zero, where one is exact.
_FLOOR = 0.001
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Regression:
    """A fitted model.

    Attributes:
        model: The coefficients.
        ratios: Of observed to predicted values.
        dropped: Features left out that the samples could not tell from the others.
    """

    model: CostModel
    ratios: Matrix
    dropped: tuple[str, ...]

    @property
    def median(self) -> float:
        """Median ratio."""
        return float(np.median(self.ratios))

    @property
    def error(self) -> float:
        """Median relative error."""
        return float(np.median(np.abs(1.0 / self.ratios - 1.0)))

    @property
    def spread(self) -> float:
        """Robust relative deviation of the ratios from their median."""
        logs = np.log(self.ratios)
        return float(1.4826 * np.median(np.abs(logs - np.median(logs))))

    @property
    def p95(self) -> float:
        """95th percentile of the ratios, at least 1."""
        return max(1.0, float(np.quantile(self.ratios, 0.95)))

    @property
    def bound(self) -> float:
        """Least ratio, of those there are and at least 1, that 99 % do not exceed."""
        return max(1.0, float(np.quantile(self.ratios, 0.99, method="inverted_cdf")))


def regress(
    shapes: Sequence[Shape],
    values: Sequence[float],
    *,
    prior: CostModel | None,
    settings: PerformanceSettings,
    features: Sequence[str] = SECONDS,
) -> Regression | None:
    """Fit non-negative coefficients to positive values of which relative errors matter.

    Weighted least squares, the weights being 1/prediction² (so that a job of a second counts as
    much as one of an hour) times Huber's (so that stragglers count little), iterated until they
    agree. Features that the samples do not need are left out.

    The prior, where it depends on the shape at all, joins in as pseudo-observations at
    `REFERENCE_SHAPES`: what it says there times the median ratio of the samples to it. So where
    there are no samples a prediction follows the prior's proportions at the samples' level.

    Args:
        shapes: Of the samples.
        values: Of the samples, all positive.
        prior: What is known beforehand.
        settings: How much the prior weighs.
        features: That may have a coefficient.

    Returns:
        None where nothing positive can be fitted.
    """
    y = np.asarray(values, dtype=np.float64)
    x = feature_matrix(shapes)
    rows = _Rows(x, y, np.ones(len(y)), np.full(len(y), fill_value=True))
    allowed = [FEATURES.index(name) for name in _DISPENSABLE if name in features]
    base = [j for j in allowed if prior is not None and prior.coefficients[j] > 0.0]
    found = _solve(rows, allowed)
    noise = _noise(rows, found)
    columns = _needed(rows, allowed, base, found, noise)
    if prior is not None and any(prior.coefficients[1:]):
        rows = _with_prior(rows, prior, noise, settings)
    found = _solve(rows, columns)
    predicted = x @ found
    if not (np.isfinite(predicted).all() and (predicted > 0.0).all()):
        return None
    model = CostModel(**dict(zip(FEATURES, found.tolist(), strict=True)))
    return Regression(model, y / predicted, _untold(x / y[:, None], columns, allowed))


def feature_matrix(shapes: Sequence[Shape]) -> Matrix:
    """Return a row for each shape and a column for each name in `FEATURES`."""
    return np.array([shape.features for shape in shapes], dtype=np.float64)


def independent(rows: Matrix, order: Sequence[int], base: Sequence[int], least: float) -> list[int]:
    """Choose columns that are not sums of others (Gram-Schmidt).

    Args:
        rows: A row for each observation.
        order: Columns to look at, in this order.
        base: Columns that are taken whatever they are.
        least: What a column must add to those taken before it, relative to its length.

    Returns:
        Those of `order` that add as much.
    """
    taken: list[Matrix] = []
    chosen: list[int] = []

    def remainder(column: int) -> Matrix:
        vector = rows[:, column] / np.linalg.norm(rows[:, column])
        for _ in range(2):  # the second time removes what rounding left
            for unit in taken:
                vector = vector - (unit @ vector) * unit
        return vector

    for column in base:
        rest = remainder(column)
        if (length := np.linalg.norm(rest)) > _MIN_INDEPENDENCE:
            taken.append(rest / length)
    for column in order:
        rest = remainder(column)
        if (length := np.linalg.norm(rest)) > max(least, _MIN_INDEPENDENCE):
            taken.append(rest / length)
            chosen.append(column)
    return chosen


@dataclass(frozen=True, slots=True)
class _Rows:
    """Samples, and below them the prior's pseudo-observations.

    Attributes:
        x: Features.
        y: Values.
        weights: Of each row.
        sampled: Whether a row is a sample.
    """

    x: Matrix
    y: Matrix
    weights: Matrix
    sampled: NDArray[np.bool_]


def _needed(
    rows: _Rows, allowed: Sequence[int], base: Sequence[int], found: Matrix, noise: float
) -> list[int]:
    """Leave out, one after the other, what the samples are explained without.

    A feature is worth it if it explains ln(n) times the noise's square (Schwarz's criterion). What
    the prior has stays.
    """
    predicted = np.maximum(rows.x @ found, _FLOOR * rows.y)
    deviation = np.abs(rows.y / predicted - 1.0)
    robust = np.minimum(1.0, _HUBER * noise / np.maximum(deviation, _TINY))
    x, y = rows.x / predicted[:, None], rows.y / predicted

    def unexplained(columns: Sequence[int]) -> float:
        rest = y - x[:, columns] @ _non_negative(x[:, columns], y, robust)
        return float(np.sum(robust * rest**2))

    columns = list(allowed)
    least = unexplained(columns)
    worth = noise**2 * float(np.log(len(y)))
    for column in allowed:
        others = [j for j in columns if j != column]
        if column not in base and others:
            more = unexplained(others)
            if more - least <= worth:
                columns, least = others, more
    return sorted(columns)


def _untold(rows: Matrix, columns: Sequence[int], allowed: Sequence[int]) -> tuple[str, ...]:
    """Return the features left out that the samples could not tell from those that were not."""
    least = 1.0 / float(np.sqrt(len(rows)))
    return tuple(
        FEATURES[j]
        for j in sorted(allowed)
        if j not in columns and not independent(rows, (j,), columns, least)
    )


def _with_prior(
    rows: _Rows, prior: CostModel, noise: float, settings: PerformanceSettings
) -> _Rows:
    count = len(rows.y)
    reference = feature_matrix(REFERENCE_SHAPES)
    coefficients = np.asarray(prior.coefficients)
    level = np.exp(np.median(np.log(rows.y / (rows.x @ coefficients))))
    pseudo = level * (reference @ coefficients)
    faded = settings.prior_weight * settings.prior_fade / (settings.prior_fade + count)
    weight = faded * (noise / _USUAL_NOISE) ** 2 / len(reference)
    return _Rows(
        np.vstack((rows.x, reference)),
        np.concatenate((rows.y, pseudo)),
        np.concatenate((rows.weights, np.full(len(reference), weight))),
        np.concatenate((rows.sampled, np.full(len(reference), fill_value=False))),
    )


def _noise(rows: _Rows, found: Matrix) -> float:
    """Return the samples' robust relative deviation from a fit without a prior."""
    deviation = np.abs(rows.y / np.maximum(rows.x @ found, _FLOOR * rows.y) - 1.0)
    count = len(rows.y)
    freedom = count / max(1, count - int(np.count_nonzero(found)))
    return max(_LEAST_SPREAD, 1.4826 * float(np.median(deviation)) * float(np.sqrt(freedom)))


def _solve(rows: _Rows, columns: Sequence[int]) -> Matrix:
    """Iterate weighted least squares over some columns; the others' coefficients are 0."""
    x, y = rows.x[:, columns], rows.y
    predicted = y
    found = np.zeros(len(columns))
    for _ in range(_ROUNDS):
        deviation = np.abs(y - predicted) / predicted
        spread = max(_LEAST_SPREAD, 1.4826 * float(np.median(deviation[rows.sampled])))
        limit = np.where(rows.sampled, _HUBER * spread, _PRIOR_HUBER)
        robust = np.minimum(1.0, limit / np.maximum(deviation, _TINY))
        before = found
        found = _non_negative(x / predicted[:, None], y / predicted, rows.weights * robust)
        predicted = np.maximum(x @ found, _FLOOR * rows.y)
        if np.all(np.abs(found - before) <= _CONVERGED * np.abs(found)):
            break
    every = np.zeros(len(FEATURES))
    every[columns] = found
    return every


def _non_negative(x: Matrix, y: Matrix, weights: Matrix) -> Matrix:
    # Columns differ by many orders of magnitude.
    scale = np.sqrt(np.mean(x**2, axis=0))
    model = LinearRegression(positive=True, fit_intercept=False)
    return np.asarray(model.fit(x / scale, y, sample_weight=weights).coef_ / scale)
