"""What a relaxation's multipliers prove, in whole numbers.

Whatever whole numbers rows are multiplied by before they are added up, the sum says something true
about every point that satisfies them. Good multipliers, those that a linear program's duals are
rounded to, say something sharp.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from disagfusion.scheduling.solver.program import Bounds, dot

Floats = npt.NDArray[np.float64]

_BITS = 44
_DIGIT_BITS = 6
_NOISE = 1e-12
"""Of the largest multiplier: what is smaller is rounding."""


def scaled(value: int, exponent: int) -> float:
    """Return value / 2 ** exponent, for whole numbers of any size."""
    return value / (1 << exponent) if exponent >= 0 else float(value << -exponent)


@dataclass(frozen=True)
class Multipliers:
    """What rows are multiplied by.

    Attributes:
        whole: One for each row.
        bits: How many of their bits are behind the point.
    """

    whole: list[int]
    bits: int


@dataclass(frozen=True)
class Proof:
    """What a sum of rows comes to in a box.

    Attributes:
        gap: The most that it can be, less what the bounds of the program's rows demand.
        rounding: The part of it that would be nothing if the multipliers were not rounded.
        goal: The multipliers of the goal's rows, whose bounds tighten with every better point.
    """

    gap: int
    rounding: int
    goal: list[int]

    def excess(self, demand: Sequence[Bounds]) -> int | None:
        """Return by how much it can be more than what is demanded of the goal's rows.

        Where it is negative, no point of the box meets the demand. None if nothing is demanded.
        """
        needed = 0
        for multiplier, (lower, upper) in zip(self.goal, demand, strict=True):
            bound = lower if multiplier > 0 else upper
            if multiplier and bound is None:
                return None
            needed += multiplier * (bound or 0)
        return self.gap - needed


class Prover:
    """Adds up rows over boxes of coordinates.

    Args:
        images: For each coordinate, its coefficient in every row.
        bounds: Of every row.
        goals: How many of the rows, the first ones, are the goal's.
        scales: Powers of two by which the rows' coefficients are divided in floating point.
        matrix: The rows in floating point.
    """

    def __init__(
        self,
        images: Sequence[Sequence[int]],
        bounds: Sequence[Bounds],
        goals: int,
        scales: Sequence[int],
        matrix: Floats,
    ) -> None:
        self._images = images
        self._bounds = bounds
        self._goals = goals
        greatest = max(scales)
        self._greatest = greatest
        self._shifts = [greatest - scale for scale in scales]
        self._matrix = matrix

    def multipliers(self, duals: Floats) -> Multipliers:
        """Return the whole numbers that the rows' duals, the first ones, are rounded to."""
        whole = [0] * len(self._shifts)
        sizes = np.abs(duals[: len(whole)])
        largest = float(sizes.max())
        if largest and math.isfinite(largest):
            for i in np.nonzero(sizes > _NOISE * largest)[0].tolist():
                whole[i] = round(math.ldexp(float(duals[i]), _BITS)) << self._shifts[i]
        return Multipliers(whole, _BITS)

    def prove(
        self,
        multipliers: Multipliers,
        box: tuple[Sequence[int], Sequence[int]],
        case: Mapping[int, Bounds],
        demand: Sequence[Bounds],
        basic: Sequence[int] = (),
    ) -> Proof:
        """Add up the rows in a box.

        In every point that satisfies the rows, the sum is at least the sum of the multipliers
        times the bounds; and it is at most what the box allows.
        """
        whole = multipliers.whole.copy()
        demanded = 0
        for i, multiplier in enumerate(whole):
            if multiplier:
                bounds = demand[i] if i < self._goals else case.get(i) or self._bounds[i]
                bound = bounds[multiplier < 0]
                if bound is None:
                    whole[i] = 0
                elif i >= self._goals:
                    demanded += multiplier * bound
        parts = [
            coefficient * (high if coefficient > 0 else low)
            for coefficient, low, high in zip(
                (dot(whole, image) for image in self._images), *box, strict=True
            )
        ]
        rounding = sum(parts[k] for k in basic)
        return Proof(sum(parts) - demanded, rounding, whole[: self._goals])

    def digit(self, multipliers: Multipliers) -> int:
        """Return an excess so small that it may come from rounding the multipliers."""
        return 1 << max(multipliers.bits + self._greatest - _DIGIT_BITS, 0)

    def refine(self, multipliers: Multipliers, basic: Sequence[int]) -> Multipliers:
        """Return multipliers whose sum cancels better in some coordinates.

        A step of Newton's method: what is left over is exact, the correction is in floating
        point, so every step adds digits.
        """
        unit = multipliers.bits + self._greatest
        left = [scaled(dot(multipliers.whole, self._images[k]), unit) for k in basic]
        rows = [i for i, multiplier in enumerate(multipliers.whole) if multiplier]
        matrix = self._matrix[np.ix_(rows, basic)]
        changes = np.linalg.lstsq(matrix.T, -np.array(left), rcond=None)[0]
        bits = multipliers.bits + _BITS
        whole = [multiplier << _BITS for multiplier in multipliers.whole]
        for i, change in zip(rows, changes.tolist(), strict=True):
            whole[i] += round(math.ldexp(change, bits)) << self._shifts[i]
        return Multipliers(whole, bits)
