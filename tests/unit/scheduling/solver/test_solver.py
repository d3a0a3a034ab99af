"""The parts that the planner's proofs rest on."""

from __future__ import annotations

from itertools import product
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disagfusion.scheduling.solver import goals, single
from disagfusion.scheduling.solver.fill import filled
from disagfusion.scheduling.solver.lattice import Basis, Reduction, unit_basis
from disagfusion.scheduling.solver.moves import Moves
from disagfusion.scheduling.solver.optimum import optimum
from disagfusion.scheduling.solver.program import (
    Bounds,
    Highest,
    Least,
    Program,
    Row,
    dot,
    within,
)
from disagfusion.scheduling.solver.proof import Multipliers, Prover, scaled
from disagfusion.scheduling.solver.ratio import Ratio

some = settings(max_examples=50, deadline=None)
small = st.integers(-6, 6)


def random_basis(random: Random, size: int, bits: int) -> Basis:
    """A reduced basis for a body that is thin along two rows with large coefficients."""
    rows = [tuple(random.getrandbits(bits) for _ in range(size)) for _ in range(2)]
    basis = unit_basis(rows, size)
    exponents = [bits - random.randint(0, bits), bits - random.randint(0, bits)] + [5] * size
    target = [dot(row, [20] * size) for row in rows] + [20] * size
    Reduction(basis, exponents, target).run()
    return basis


@pytest.mark.parametrize("bits", [4, 20, 60, 200])
@pytest.mark.parametrize("size", [1, 2, 5, 12])
def test_a_reduced_basis_is_of_the_same_lattice(size: int, bits: int) -> None:
    for seed in range(2):
        basis = random_basis(Random(f"{seed}/{size}/{bits}"), size, bits)
        for i, row in enumerate(basis.inverse):
            # Whole numbers both ways: neither leaves out a point nor adds one.
            products = [dot(row, vector) for vector in basis.vectors]
            assert products == [int(k == i) for k in range(size)]
            assert all(type(entry) is int for entry in (*row, *basis.vectors[i]))


def test_a_reduced_basis_is_shorter() -> None:
    basis = random_basis(Random(1), 12, 40)
    longest = max(max(map(abs, vector)) for vector in basis.vectors)
    assert 1 < longest < 2**20


def test_coordinates_lead_to_points_within_bounds() -> None:
    basis = random_basis(Random(2), 3, 10)
    least, most = basis.box((0, 0, 0), (4, 4, 4))
    points = {basis.point(one) for one in product(*map(range, least, [m + 1 for m in most]))}
    assert points >= set(product(range(5), repeat=3))


def test_whatever_the_multipliers_a_proof_is_true() -> None:
    """If a sum of rows refutes a box, then no point of the box keeps the rows: all are tried."""
    random = Random(3)
    box = [-2, -1, 0], [2, 2, 1]
    refuted = 0
    for _ in range(4000):
        rows = [[random.randint(-6, 6) for _ in range(3)] for _ in range(random.randint(1, 4))]
        lows = [random.randint(-9, 9) for _ in rows]
        bounds: list[Bounds] = [(low, low + random.randint(0, 9)) for low in lows]
        bounds[0] = random.choice([(lows[0], None), (None, lows[0])])
        images = [list(column) for column in zip(*rows, strict=True)]
        prover = Prover(images, bounds, 1, [0] * len(rows), np.array(rows, float))
        multipliers = Multipliers([random.randint(-9, 9) for _ in rows], 0)
        excess = prover.prove(multipliers, box, {}, bounds[:1]).excess(bounds[:1])
        if excess is None or excess >= 0:
            continue
        refuted += 1
        for point in product(*(range(low, high + 1) for low, high in zip(*box, strict=True))):
            values = [dot(row, point) for row in rows]
            assert not all(map(within, bounds, values))
    assert refuted > 100


def test_refined_multipliers_cancel_better() -> None:
    random = Random(5)
    images = [[random.randint(-50, 50) for _ in range(6)] for _ in range(6)]
    prover = Prover(images, [(0, None)] * 6, 1, [0] * 6, np.array(images, float).T)
    duals = np.linalg.lstsq(np.array(images, float)[:5], np.zeros(5), rcond=None)[0]
    null = np.linalg.svd(np.array(images, float)[:5])[2][-1]
    multipliers = prover.multipliers(duals + null)
    sizes = []
    for _ in range(3):
        left = max(abs(dot(multipliers.whole, images[k])) for k in range(5))
        sizes.append(scaled(left, multipliers.bits))
        multipliers = prover.refine(multipliers, [0, 1, 2, 3, 4])
    assert sizes[0] > 1e6 * sizes[1] > 1e12 * sizes[2]


@some
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=2),
    st.tuples(small, small),
    st.integers(0, 12),
)
def test_the_optimum_is_that_of_all_points(
    flows: list[tuple[int, int]], costs: tuple[int, int], most: int
) -> None:
    program = Program((0, 0), (5, 4), (Row((1, 2), None, most),))
    points = [one for one in product(range(6), range(5)) if program.admits(one)]
    highest = Highest(tuple(flows))
    found = optimum(program, highest, limit=1000)
    assert found.proven
    assert found.value == max(map(highest.value, points))
    least = Least(costs)
    cheap = optimum(program, least, incumbent=(0, 0), limit=1000)
    assert cheap.proven
    assert cheap.value == min(map(least.value, points))
    either = [{~0: (None, 1)}, {0: (4, None)}]
    fitting = [one for one in points if any(program.fits(case, one) for case in either)]
    chosen = optimum(program, highest, cases=either, limit=1000)
    assert chosen.proven
    assert chosen.value == max(map(highest.value, fitting), default=None)


@some
@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=4),
    st.lists(st.integers(1, 3), min_size=4, max_size=4),
    st.lists(st.tuples(st.integers(0, 3), st.none() | st.integers(3, 6)), min_size=4, max_size=4),
    st.integers(0, 25),
    st.none() | st.integers(1, 60),
)
def test_one_pool_needs_no_search(
    speeds: list[int],
    accelerators: list[int],
    bounds: list[tuple[int, int | None]],
    capacity: int,
    target: int | None,
) -> None:
    """Bisection and branch and bound agree."""
    count = len(speeds)
    ratio = Ratio(
        stages=tuple(range(count)),
        pools=(0,) * count,
        speeds=tuple(speeds),
        accelerators=tuple(accelerators[:count]),
        costs=tuple(accelerators[:count]),
        capacities=(capacity,),
        least=tuple(low for low, _ in bounds[:count]),
        most=tuple(high for _, high in bounds[:count]),
        target=target,
    )
    found, searched = single.best(ratio), goals.best(ratio, 1000)
    assert (found is None) == (searched is None)
    if not found or not searched:
        return
    assert found.point == searched.point
    second, other = single.runner_up(ratio, found), goals.runner_up(ratio, searched, 1000)
    assert (second is None) == (other is None)
    if second and other:
        assert _rank(ratio, second.point) == _rank(ratio, other.point)
        more = filled(ratio, second.point, found.point)
        assert ratio.flow(more) == ratio.flow(second.point)


def _rank(ratio: Ratio, point: tuple[int, ...]) -> tuple[int, int]:
    flow = ratio.flow(point)
    reached = flow if ratio.target is None else min(flow, ratio.target)
    return -reached, dot(ratio.accelerators, point)


def test_what_costs_nothing_fills_the_slower_stages() -> None:
    ratio = Ratio(
        stages=(0, 1, 2),
        pools=(0, 0, 0),
        speeds=(20, 5, 11),
        accelerators=(1, 1, 1),
        costs=(0, 0, 0),
        capacities=(8,),
        least=(1, 1, 1),
        most=(None, None, None),
    )
    assert filled(ratio, (1, 4, 2), (2, 4, 2)) == (1, 5, 2)
    assert ratio.bottleneck((1, 4, 2)) == 0 == ratio.bottleneck((1, 5, 2))


def test_moves_are_starts_and_stops() -> None:
    program = Program((0, 1, 0), (5, 5, 2), (Row((1, 1, 1), None, 7),))
    moves = Moves(program, (2, 0, 9))
    for point in product(range(6), range(1, 6), range(3)):
        changed = moves.of(point)
        assert moves.plan(changed) == point
        assert sum(changed) == abs(point[0] - 2) + abs(point[1] - 1) + abs(point[2] - 2)
        assert moves.program.admits(changed) == program.admits(point)
        case = {0: (3, None), ~1: (None, 2)}
        assert moves.program.fits(moves.case(case), changed) == program.fits(case, point)
