"""Problems of the size of a large fleet."""

from __future__ import annotations

from random import Random

from disagfusion.scheduling.profile import Pool, Profile, StagePool, StageProfile

KINDS = ("any", "rounded", "factor")


def large_profile(
    random: Random,
    kind: str,
    *,
    stages: int = 3,
    pools: int = 8,
    accelerators: int = 10_000,
    costs: bool = False,
    bounds: bool = False,
) -> Profile:
    """Return a profile with random stage times.

    Args:
        random: Where the numbers come from.
        kind: "any": seconds with two decimals. "rounded": pools differ by one factor for all
            stages, seconds are rounded to two decimals. "factor": the same, not rounded.
        stages: How many.
        pools: How many.
        accelerators: In all pools together.
        costs: Whether pools have different prices.
        bounds: Whether stages have minima and maxima.
    """
    cuts = sorted(random.sample(range(1, accelerators), pools - 1))
    sizes = [b - a for a, b in zip([0, *cuts], [*cuts, accelerators], strict=True)]
    base = [round(random.uniform(0.5, 100), 2) for _ in range(stages)]
    factors = [round(random.uniform(0.5, 3), 2) for _ in range(pools)]

    def seconds(stage: int, pool: int) -> float:
        if kind == "any":
            return round(random.uniform(0.5, 100), 2)
        return round(base[stage] * factors[pool], 2 if kind == "rounded" else 4)

    def limits() -> dict[str, int]:
        found = {}
        if bounds and random.random() < 0.6:
            found["min"] = random.randint(1, accelerators // 20)
        if bounds and random.random() < 0.5:
            found["max"] = random.randint(accelerators // 20, accelerators // 2)
        return found

    return Profile(
        pools={
            f"p{p}": Pool(
                accelerators=size,
                cost_per_hour=round(random.uniform(0.2, 5), 2) if costs else 0.0,
            )
            for p, size in enumerate(sizes)
        },
        stages={
            f"s{s}": StageProfile(
                pools={f"p{p}": StagePool(seconds=seconds(s, p)) for p in range(pools)}, **limits()
            )
            for s in range(stages)
        },
    )
