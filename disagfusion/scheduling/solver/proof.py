"""What a relaxation's multipliers prove, in whole numbers.

Whatever whole numbers rows are multiplied by before they are added up, the sum says something true
about every point that satisfies them. Good multipliers, those that a linear program's duals are
rounded to, say something sharp.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from disagfusion.scheduling.solver.program import Bounds, dot

Floats = npt.NDArray[np.float64]

_BITS = 44
_NOISE = 1e-12
"""Of the largest multiplier: what is smaller is rounding."""


def scaled(value: int, exponent: int) -> float:
    """Return value / 2 ** exponent, for whole numbers of any size."""
    return value / (1 << exponent) if exponent >= 0 else float(value << -exponent)


@dataclass(frozen=True)
class Multipliers:
    """What rows, divided by their scales, are multiplied by.

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

    def multipliers(self, duals: Sequence[float]) -> Multipliers:
        """Return the whole numbers that the rows' duals are rounded to."""
        largest = max(map(abs, duals))
        if not math.isfinite(largest):
            return Multipliers([0] * len(duals), _BITS)
        least = _NOISE * largest
        whole = [round(math.ldexp(dual, _BITS)) if abs(dual) > least else 0 for dual in duals]
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
        demanded = 0
        goal = [0] * self._goals
        # Rows that were not scaled are added up first: their multipliers are small.
        small, large = [], []
        for i, multiplier in enumerate(multipliers.whole):
            if not multiplier:
                continue
            bounds = demand[i] if i < self._goals else case.get(i) or self._bounds[i]
            bound = bounds[multiplier < 0]
            if bound is None:
                continue
            shift = self._shifts[i]
            if i < self._goals:
                goal[i] = multiplier << shift
            else:
                demanded += multiplier * bound << shift
            if shift == self._greatest:
                small.append((i, multiplier))
            else:
                large.append((i, multiplier << shift))
        parts = self._parts(small, large, box)
        rounding = sum(parts[k] for k in basic)
        return Proof(sum(parts) - demanded, rounding, goal)

    def _parts(
        self,
        small: list[tuple[int, int]],
        large: list[tuple[int, int]],
        box: tuple[Sequence[int], Sequence[int]],
    ) -> list[int]:
        """Return the most that each coordinate can add to the sum."""
        # Twice the first, for nothing: of fewer than two, what is picked would be no sequence.
        pick = itemgetter(0, 0, *(i for i, _ in small))
        factors = [0, 0, *(multiplier for _, multiplier in small)]
        parts = []
        for image, low, high in zip(self._images, *box, strict=True):
            total = dot(factors, pick(image)) << self._greatest
            for i, multiplier in large:
                total += multiplier * image[i]
            parts.append(total * (high if total > 0 else low))
        return parts

    def size(self, excess: int, multipliers: Multipliers) -> float:
        """Return an excess in the relaxation's unit."""
        return scaled(excess, multipliers.bits + self._greatest)

    def refine(self, multipliers: Multipliers, basic: Sequence[int]) -> Multipliers:
        """Return multipliers whose sum cancels better in some coordinates.

        A step of Newton's method: what is left over is exact, the correction is in floating
        point, so every step adds digits.
        """
        unit = multipliers.bits + self._greatest
        shifted = [one << shift for one, shift in zip(multipliers.whole, self._shifts, strict=True)]
        left = [scaled(dot(shifted, self._images[k]), unit) for k in basic]
        rows = [i for i, multiplier in enumerate(multipliers.whole) if multiplier]
        matrix = self._matrix[np.ix_(rows, basic)]
        changes = np.linalg.lstsq(matrix.T, -np.array(left), rcond=None)[0]
        bits = multipliers.bits + _BITS
        whole = [multiplier << _BITS for multiplier in multipliers.whole]
        for i, change in zip(rows, changes.tolist(), strict=True):
            whole[i] += round(math.ldexp(change, bits))
        return Multipliers(whole, bits)
