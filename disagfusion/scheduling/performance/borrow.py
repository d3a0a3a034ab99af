"""A stage on a pool of which nothing is known: what it does elsewhere, times a speed factor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from disagfusion.scheduling.performance.documents import FittedPair
from disagfusion.scheduling.performance.features import mean_ratio
from disagfusion.scheduling.performance.samples import Pair
from disagfusion.scheduling.profile import Profile


class FactorSource(StrEnum):
    """From what a speed factor was taken."""

    PROFILE = "profile"
    """Other stages that the profile has on both pools."""
    FITTED = "fitted"
    """Other stages that were fitted on both pools."""
    NONE = "none"
    """No stage is known on both: the pools count as equally fast."""


@dataclass(frozen=True, slots=True)
class Loan:
    """From where a stage's prediction on an unseen pool comes.

    Attributes:
        pool: On which the stage is known.
        factor: Seconds on the unseen pool over seconds there.
        source: From what the factor was taken.
    """

    pool: str
    factor: float
    source: FactorSource


_ORDER = tuple(FactorSource)


def borrow(
    stage: str, pool: str, profile: Profile, fitted: Mapping[Pair, FittedPair]
) -> Loan | None:
    """Choose a pool to borrow from.

    One with a factor from the profile goes before one with a factor from fits, that before one
    without; then one where the stage was fitted, with more samples, by name.

    Returns:
        None where the stage is known on no other pool.
    """
    known = {where for what, where in fitted if what == stage}
    if stage in profile.stages:
        known.update(profile.stages[stage].pools)
    loans = [_loan(where, pool, profile, fitted) for where in known - {pool}]

    def rank(loan: Loan) -> tuple[int, int, str]:
        there = fitted.get((stage, loan.pool))
        return _ORDER.index(loan.source), -there.samples if there else 0, loan.pool

    return min(loans, key=rank, default=None)


def _loan(known: str, pool: str, profile: Profile, fitted: Mapping[Pair, FittedPair]) -> Loan:
    factors = [
        mean_ratio(stage.pools[pool].seconds_of, stage.pools[known].seconds_of)
        for stage in profile.stages.values()
        if pool in stage.pools and known in stage.pools
    ]
    if factors:
        return Loan(known, _geometric_mean(factors), FactorSource.PROFILE)
    factors = [
        _fitted_ratio(fitted[stage, pool], fitted[stage, known])
        for stage, where in fitted
        if where == pool and (stage, known) in fitted
    ]
    if factors:
        return Loan(known, _geometric_mean(factors), FactorSource.FITTED)
    return Loan(known, 1.0, FactorSource.NONE)


def _fitted_ratio(numerator: FittedPair, denominator: FittedPair) -> float:
    """Compare two fits at the ends and in the middle of what the second was sampled for."""
    middle = tuple(
        math.sqrt(low * high)
        for low, high in zip(denominator.lowest, denominator.highest, strict=True)
    )
    ratios = [
        _cost(numerator, row) / _cost(denominator, row)
        for row in (denominator.lowest, middle, denominator.highest)
    ]
    return _geometric_mean(ratios)


def _cost(pair: FittedPair, row: tuple[float, ...]) -> float:
    return sum(c * f for c, f in zip(pair.seconds.coefficients, row, strict=True))


def _geometric_mean(values: list[float]) -> float:
    return math.exp(sum(math.log(value) for value in values) / len(values))
