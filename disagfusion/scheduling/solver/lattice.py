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
from disagfusion.scheduling.solver.proof import scaled

Vector = list[int]

_LOVASZ = 0.95
_HALF = 0.51
_MOST_ROUNDS = 4
_TINY = 1e-150
_APART = 1e5
"""In widths of the body."""
_STEP_BITS = 24
"""How much widths shrink at once: less than the digits that a double has to lose."""


@dataclass
class Basis:
    """A basis of the whole numbers' lattice and a point from which its coordinates count.

    Attributes:
        rows: Sums over the variables that matter.
        vectors: The basis.
        inverse: For each vector: what gives its coordinate of a difference of points.
        origin: The point.
        along: Whether the vectors are the variables' own.
        apart: The vectors, by number, whose multiples are so far apart that the body, which is
            around the origin, can reach no other than the one through it.
    """

    rows: Sequence[Point]
    vectors: list[Vector]
    inverse: list[Vector]
    origin: Vector
    along: bool = False
    apart: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Number of vectors and of their entries."""
        return len(self.vectors)

    def image(self, vector: Sequence[int]) -> Vector:
        """Return a vector's values on all rows, then its entries."""
        return [*(dot(row, vector) for row in self.rows), *vector]

    def on(self, rows: Sequence[Point]) -> Basis:
        """Return the same vectors for other rows, around zero."""
        vectors = [vector.copy() for vector in self.vectors]
        return Basis(rows, vectors, [row.copy() for row in self.inverse], [0] * self.size)

    def point(self, coordinates: Sequence[int]) -> Point:
        """Return the point with these coordinates."""
        entries = self.origin
        for coordinate, vector in zip(coordinates, self.vectors, strict=True):
            if coordinate:
                entries = [a + coordinate * b for a, b in zip(entries, vector, strict=True)]
        return tuple(entries)

    def box(self, lower: Point, upper: Point) -> tuple[Vector, Vector]:
        """Return the least and greatest coordinates of points within bounds."""
        down = [bound - entry for bound, entry in zip(lower, self.origin, strict=True)]
        up = [bound - entry for bound, entry in zip(upper, self.origin, strict=True)]
        least, greatest = [], []
        for k, row in enumerate(self.inverse):
            entries = [] if k in self.apart else [(j, c) for j, c in enumerate(row) if c]
            least.append(sum(c * (down[j] if c > 0 else up[j]) for j, c in entries))
            greatest.append(sum(c * (up[j] if c > 0 else down[j]) for j, c in entries))
        return least, greatest

    def beyond(self) -> list[Row]:
        """Return what points out of the body's reach satisfy: each at least one of these."""
        found = []
        for k in self.apart:
            row = tuple(self.inverse[k])
            at = dot(row, self.origin)
            found += [Row(row, None, at - 1), Row(row, at + 1, None)]
        return found


def unit_basis(rows: Sequence[Point], size: int) -> Basis:
    """Return the basis whose coordinates are the variables themselves."""
    units, inverse = ([[int(i == j) for j in range(size)] for i in range(size)] for _ in range(2))
    return Basis(rows, units, inverse, [0] * size, along=True)


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
        self._exponents = self._final
        self._norms: list[float] = []
        self._mu: list[list[float]] = []

    def run(self) -> None:
        """Reduce the basis, and move its origin to a point of the lattice near the target."""
        basis = self._basis
        columns = zip(*map(basis.image, basis.vectors), strict=True)
        limits = [max(map(abs, column)).bit_length() for column in columns]
        while True:
            limits = [bits - _STEP_BITS for bits in limits]
            self._exponents = list(map(max, self._final, limits))
            self._order()
            for _ in range(_MOST_ROUNDS):
                self._orthogonalise()
                if not self._reduce():
                    break
            self._orthogonalise()
            self._approach()
            if self._exponents == self._final:
                break
        basis.along = False
        basis.apart = tuple(k for k, norm in enumerate(self._norms) if norm > _APART**2)

    def _floats(self, vector: Sequence[int]) -> list[float]:
        return list(map(scaled, self._basis.image(vector), self._exponents))

    def _order(self) -> None:
        """Put short vectors first: those that thin rows see only would be moved back one by one."""
        basis = self._basis
        vectors = np.array(list(map(self._floats, basis.vectors)))
        order = np.argsort((vectors**2).sum(axis=1), kind="stable").tolist()
        basis.vectors = [basis.vectors[i] for i in order]
        basis.inverse = [basis.inverse[i] for i in order]

    def _orthogonalise(self) -> None:
        """Work out, from what is exact, how the vectors lie to each other."""
        vectors = np.array(list(map(self._floats, self._basis.vectors)))
        triangle = np.linalg.qr(vectors.T, mode="r")
        lengths = np.where(np.diag(triangle) == 0.0, _TINY, np.diag(triangle))
        self._mu = (triangle / lengths[:, None]).T.tolist()
        self._norms = (lengths**2).tolist()

    def _reduce(self) -> bool:
        """Reduce by what `_orthogonalise` found; return whether vectors were exchanged."""
        mu, norms = self._mu, self._norms
        exchanged = False
        i = 1
        while i < len(norms):
            self._shorten(i, i - 1)
            if norms[i] < (_LOVASZ - mu[i][i - 1] ** 2) * norms[i - 1]:
                self._exchange(i)
                exchanged = True
                i = max(i - 1, 1)
                continue
            for j in range(i - 2, -1, -1):
                self._shorten(i, j)
            i += 1
        return exchanged

    def _shorten(self, i: int, j: int) -> None:
        """Take a whole multiple of a vector from a later one."""
        mu = self._mu
        if -_HALF < mu[i][j] < _HALF:
            return
        factor = round(mu[i][j])
        basis = self._basis
        basis.vectors[i] = _less(basis.vectors[i], factor, basis.vectors[j])
        basis.inverse[j] = _less(basis.inverse[j], -factor, basis.inverse[i])
        row, other = mu[i], mu[j]
        row[j] -= factor
        for k in range(j):
            row[k] -= factor * other[k]

    def _exchange(self, i: int) -> None:
        """Exchange a vector with the one before it."""
        mu, norms, basis = self._mu, self._norms, self._basis
        for rows in (basis.vectors, basis.inverse):
            rows[i - 1], rows[i] = rows[i], rows[i - 1]
        old = mu[i][i - 1]
        norm = norms[i] + old * old * norms[i - 1]
        new = old * norms[i - 1] / norm
        norms[i - 1], norms[i] = norm, norms[i - 1] * norms[i] / norm
        mu[i - 1][: i - 1], mu[i][: i - 1] = mu[i][: i - 1], mu[i - 1][: i - 1]
        mu[i][i - 1] = new
        for row in mu[i + 1 :]:
            row[i], row[i - 1] = row[i - 1] - old * row[i], row[i]
            row[i - 1] += new * row[i]

    def _approach(self) -> None:
        """Move the origin by whole multiples of the vectors to near the target."""
        basis = self._basis
        vectors = np.array(list(map(self._floats, basis.vectors)))
        directions, triangle = np.linalg.qr(vectors.T)
        lengths = np.where(np.diag(triangle) == 0.0, _TINY, np.diag(triangle))
        for _ in range(4):
            image = basis.image(basis.origin)
            rest = [a - b for a, b in zip(image, self._target, strict=True)]
            away = directions.T @ np.array(list(map(scaled, rest, self._exponents)))
            coordinates = [0] * basis.size
            for k in range(basis.size - 1, -1, -1):
                coordinates[k] = -round(float(away[k] / lengths[k]))
                away += coordinates[k] * triangle[:, k]
            if not any(coordinates):
                return
            basis.origin = list(basis.point(coordinates))


def _less(left: Vector, factor: int, right: Vector) -> Vector:
    return [a - factor * b for a, b in zip(left, right, strict=True)]
