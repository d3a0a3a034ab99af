"""A basis of the whole numbers whose vectors are short where the set of good points is thin.

The points that are nearly as good as the best lie in a body that is as thin as a hair in some
directions (the stages' throughputs) and hundreds of replicas wide in others. Searched along the
variables such a body has millions of boxes that hold a fraction of a point; along a reduced basis
it has few. H. W. Lenstra, Integer programming with a fixed number of variables (1983); the basis
is reduced as by A. K. Lenstra, H. W. Lenstra and L. Lovász (1982).

Floating-point numbers choose the steps, whole numbers carry them out: whatever the rounding, the
result is a basis of the same lattice, if perhaps not the shortest one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from disagfusion.scheduling.solver.program import Point, Row, dot
from disagfusion.scheduling.solver.proof import Floats, scaled

Vector = list[int]

_LOVASZ = 0.95
_SMALL = 1 << 20
_APART = 1e5
"""In widths of the body."""
_STEP_BITS = 24
"""How much widths shrink at once: less than the digits that a double has to lose."""


@dataclass
class Basis:
    """A basis of the whole numbers' lattice and a point from which its coordinates count.

    Attributes:
        images: For each vector: its values on all rows, then its entries.
        inverse: For each vector: what gives its coordinate of a difference of points.
        origin: The point's values on all rows, then its entries.
        size: Number of vectors and of entries.
        along: Whether the vectors are the variables' own.
        apart: The vectors, by number, whose multiples are so far apart that the body, which is
            around the origin, can reach no other than the one through it.
    """

    images: list[Vector]
    inverse: list[Vector]
    origin: Vector
    size: int
    along: bool = False
    apart: tuple[int, ...] = ()

    def on(self, rows: Sequence[Point]) -> Basis:
        """Return the same vectors with their values on other rows, around zero."""
        size = self.size
        vectors = [image[-size:] for image in self.images]
        images = [[*(dot(row, vector) for row in rows), *vector] for vector in vectors]
        return Basis(images, [row.copy() for row in self.inverse], [0] * (len(rows) + size), size)

    def point(self, coordinates: Sequence[int]) -> Point:
        """Return the point with these coordinates."""
        entries = self.origin[-self.size :]
        for coordinate, image in zip(coordinates, self.images, strict=True):
            if coordinate:
                entries = _combine(entries, coordinate, image[-self.size :])
        return tuple(entries)

    def box(self, lower: Point, upper: Point) -> tuple[Vector, Vector]:
        """Return the least and greatest coordinates of points within bounds."""
        origin = self.origin[-self.size :]
        down = [bound - entry for bound, entry in zip(lower, origin, strict=True)]
        up = [bound - entry for bound, entry in zip(upper, origin, strict=True)]
        least, greatest = [], []
        for k, row in enumerate(self.inverse):
            entries = [] if k in self.apart else [(j, c) for j, c in enumerate(row) if c]
            least.append(sum(c * (down[j] if c > 0 else up[j]) for j, c in entries))
            greatest.append(sum(c * (up[j] if c > 0 else down[j]) for j, c in entries))
        return least, greatest

    def beyond(self) -> list[Row]:
        """Return what points out of the body's reach satisfy: each at least one of these."""
        origin = self.origin[-self.size :]
        found = []
        for k in self.apart:
            row = tuple(self.inverse[k])
            at = dot(row, origin)
            found += [Row(row, None, at - 1), Row(row, at + 1, None)]
        return found


def unit_basis(rows: Sequence[Point], size: int) -> Basis:
    """Return the basis whose coordinates are the variables themselves."""
    columns = list(zip(*rows, strict=True)) if rows else [()] * size
    units = [[int(i == j) for j in range(size)] for i in range(size)]
    images = [[*column, *unit] for column, unit in zip(columns, units, strict=True)]
    return Basis(images, units, [0] * (len(rows) + size), size, along=True)


def _combine(left: Vector, factor: int, right: Vector) -> Vector:
    return [a + factor * b for a, b in zip(left, right, strict=True)]


class Reduction:
    """Makes a basis short in a norm.

    Args:
        basis: Where to begin. It is changed.
        exponents: The body's width along each row and then along each variable, as a power of two.
        target: A point in the middle of the body, as values on all rows, then its entries.
    """

    def __init__(self, basis: Basis, exponents: Sequence[int], target: Sequence[int]) -> None:
        self._basis = basis
        self._final = list(exponents)
        self._target = list(target)
        size, length = basis.size, len(self._final)
        self._exponents = self._final
        self._vectors: Floats = np.zeros((size, length))
        self._orthogonal: Floats = np.zeros((size, length))
        self._norms: Floats = np.zeros(size)
        self._mu: Floats = np.zeros((size, size))

    def run(self) -> None:
        """Reduce the basis, and move its origin to a point of the lattice near the target."""
        columns = zip(*self._basis.images, strict=True)
        limits = [max(map(abs, column)).bit_length() for column in columns]
        while True:
            limits = [bits - _STEP_BITS for bits in limits]
            self._exponents = list(map(max, self._final, limits))
            self._order()
            self._reduce()
            self._approach()
            if self._exponents == self._final:
                break
        self._basis.apart = tuple(np.nonzero(self._norms > _APART**2)[0].tolist())

    def _floats(self, image: Sequence[int]) -> list[float]:
        return list(map(scaled, image, self._exponents))

    def _order(self) -> None:
        """Put short vectors first: those that thin rows see only would be moved back one by one."""
        basis = self._basis
        self._vectors[:] = [self._floats(image) for image in basis.images]
        order = np.argsort((self._vectors**2).sum(axis=1), kind="stable")
        basis.images = [basis.images[i] for i in order]
        basis.inverse = [basis.inverse[i] for i in order]
        self._vectors = self._vectors[order]

    def _reduce(self) -> None:
        basis, norms, mu = self._basis, self._norms, self._mu
        self._orthogonalise(0)
        i = 1
        while i < basis.size:
            self._shorten(i)
            if norms[i] >= (_LOVASZ - mu[i, i - 1] ** 2) * norms[i - 1]:
                i += 1
                continue
            for rows in (basis.images, basis.inverse):
                rows[i - 1], rows[i] = rows[i], rows[i - 1]
            self._vectors[[i - 1, i]] = self._vectors[[i, i - 1]]
            i -= 1
            self._orthogonalise(i)
            i = max(i, 1)

    def _orthogonalise(self, i: int) -> None:
        vector = self._vectors[i]
        if i:
            before, norms = self._orthogonal[:i], self._norms[:i]
            mu = (before @ vector) / norms
            rest = vector - mu @ before
            again = (before @ rest) / norms  # What the first time lost to rounding.
            rest -= again @ before
            self._mu[i, :i] = mu + again
        else:
            rest = vector
        self._orthogonal[i] = rest
        self._norms[i] = max(float(rest @ rest), 1e-300)

    def _shorten(self, i: int) -> None:
        """Take whole multiples of the vectors before it from a vector."""
        basis = self._basis
        for _ in range(4):
            self._orthogonalise(i)
            factors = self._nearest(self._mu[i], i)
            for j, factor in factors:
                basis.images[i] = _combine(basis.images[i], -factor, basis.images[j])
                basis.inverse[j] = _combine(basis.inverse[j], factor, basis.inverse[i])
            if all(-_SMALL < factor < _SMALL for _, factor in factors):
                for j, factor in factors:
                    self._vectors[i] -= factor * self._vectors[j]
                return
            # So large a multiple takes most digits away: once more, from what is exact.
            self._vectors[i] = self._floats(basis.images[i])

    def _nearest(self, mu: Floats, count: int) -> list[tuple[int, int]]:
        factors = []
        for j in range(count - 1, -1, -1):
            if -0.51 < mu[j] < 0.51:
                continue
            factor = round(float(mu[j]))
            if factor:
                factors.append((j, factor))
                mu[:j] -= factor * self._mu[j, :j]
                mu[j] -= factor
        return factors

    def _approach(self) -> None:
        """Move the origin by whole multiples of the vectors to near the target."""
        basis = self._basis
        for _ in range(4):
            rest = [a - b for a, b in zip(basis.origin, self._target, strict=True)]
            mu = (self._orthogonal @ np.array(self._floats(rest))) / self._norms
            factors = self._nearest(mu, basis.size)
            if not factors:
                return
            for j, factor in factors:
                basis.origin = _combine(basis.origin, -factor, basis.images[j])
