"""Random problems that are small enough to try everything."""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random
from typing import Any

import yaml

from disagfusion.scheduling.demand import Demand
from disagfusion.scheduling.profile import Profile

MOST_POINTS = 6_000
"""How many plans a problem may have before it is thrown away for a smaller one."""
STAGES = ("encoder", "dit", "decoder", "upscaler")
POOLS = ("a10", "l4", "h100")


@dataclass(frozen=True)
class Case:
    """A problem as people would write it down.

    Attributes:
        profile: The profile's document.
        demand: The demand's document, if there is one.
        budget: Accelerators in all.
        current: Replicas that run.
    """

    profile: dict[str, Any]
    demand: dict[str, Any] | None
    budget: int | None
    current: dict[str, dict[str, int]] | None

    def parsed(self) -> tuple[Profile, Demand | None]:
        """Return profile and demand."""
        demand = None if self.demand is None else Demand.model_validate(self.demand)
        return Profile.model_validate(self.profile), demand

    def __str__(self) -> str:
        """Return files from which the case can be planned again."""
        text = "# profile\n" + yaml.safe_dump(self.profile, sort_keys=False)
        if self.demand is not None:
            text += "# demand\n" + yaml.safe_dump(self.demand, sort_keys=False)
        if self.current is not None:
            text += "# current\n" + yaml.safe_dump(self.current, sort_keys=False)
        return text + f"# budget: {self.budget}\n"


def random_case(random: Random) -> Case:
    """Return a problem with at most about `MOST_POINTS` plans."""
    while True:
        case = _Maker(random).case()
        if _points(case) <= MOST_POINTS:
            return case


def _points(case: Case) -> int:
    """Return about how many plans keep within the pools."""
    points = 1
    for name, pool in case.profile["pools"].items():
        takers = sum(name in stage["pools"] for stage in case.profile["stages"].values())
        points *= math.comb(pool["accelerators"] + takers, takers)
    return points


class _Maker:
    def __init__(self, random: Random) -> None:
        self._random = random
        self._pools = POOLS[: random.choice((1, 2, 2, 2, 3))]
        self._stages = STAGES[: random.choice((1, 2, 3, 3, 4))]
        self._shaped = random.random() < 0.2
        self._memory = random.random() < 0.3
        self._costs = random.choice(("none", "none", "equal", "some", "some"))
        self._wide = random.random() < 0.25
        self._seconds = random.choice(("any", "any", "few", "equal", "factor", "rounded"))
        self._factors = {pool: random.choice((0.5, 1.0, 1.25, 1.6, 2.0)) for pool in POOLS}

    def case(self) -> Case:
        profile = {
            "pools": {pool: self._pool() for pool in self._pools},
            "stages": {stage: self._stage() for stage in self._stages},
        }
        return Case(profile, self._demand(), self._budget(), self._current())

    def _pool(self) -> dict[str, Any]:
        random = self._random
        pool: dict[str, Any] = {"accelerators": random.choice((0, 1, 2, 3, 4, 5, 6, 8, 12))}
        if self._memory:
            pool["memory_gib"] = random.choice((16, 24, 48))
        if self._costs == "equal":
            pool["cost_per_hour"] = 0.7
        elif self._costs == "some":
            pool["cost_per_hour"] = random.choice((0.0, 0.1, 0.35, 0.7, 1.0, 1.25, 3.3))
        return pool

    def _stage(self) -> dict[str, Any]:
        random = self._random
        stage: dict[str, Any] = {}
        if random.random() < 0.4:
            stage["min"] = random.choice((0, 0, 1, 2, 3))
        if random.random() < 0.3:
            stage["max"] = max(stage.get("min", 1), random.choice((1, 2, 3, 5)))
        names = [name for name in self._pools if random.random() < 0.8]
        base = random.choice((1.0, 2.5, 5.05, 18.6, 74.2)) * random.choice((1, 1, 2, 0.5))
        stage["pools"] = {
            name: self._place(name, base) for name in names or [random.choice(self._pools)]
        }
        return stage

    def _place(self, pool: str, base: float) -> dict[str, Any]:
        random = self._random
        place: dict[str, Any] = {}
        if self._shaped and random.random() < 0.7:
            place["model"] = {
                "constant": round(random.uniform(0, 2), 2),
                "per_megapixel": round(random.uniform(0.1, 5), 2),
                "per_step_megapixel": round(random.uniform(0, 3), 1),
            }
        else:
            place["seconds"] = self._seconds_on(pool, base)
        if self._wide:
            place["accelerators"] = random.choice((1, 1, 2, 3))
        if self._memory:
            flat = random.choice((4, 12, 20, 38))
            place["memory_gib"] = {"constant": flat, "per_megapixel": 10} if self._shaped else flat
        return place

    def _seconds_on(self, pool: str, base: float) -> float:
        random = self._random
        if self._seconds == "any":
            return round(random.uniform(0.1, 20), 2)
        if self._seconds == "few":
            return random.choice((0.5, 1.0, 2.0, 3.0))
        if self._seconds == "equal":
            return base
        if self._seconds == "factor":
            return base * self._factors[pool]
        return round(base * self._factors[pool] * random.uniform(0.99, 1.01), 2)

    def _demand(self) -> dict[str, Any] | None:
        random = self._random
        demand: dict[str, Any] = {}
        if self._shaped:
            demand["shapes"] = [
                {
                    "height": random.choice((512, 720, 1024)),
                    "width": random.choice((512, 1280)),
                    "num_inference_steps": random.choice((1, 4)),
                    "weight": random.choice((0.3, 1.0, 2.5)),
                }
                for _ in range(random.choice((1, 2)))
            ]
        if random.random() < 0.3:
            demand["rate"] = random.choice((0.01, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0))
            if random.random() < 0.5:
                demand["headroom"] = random.choice((0.0, 0.25))
        return demand or None

    def _budget(self) -> int | None:
        return self._random.choice((None, None, self._random.randint(0, 14)))

    def _current(self) -> dict[str, dict[str, int]] | None:
        random = self._random
        if random.random() < 0.6:
            return None
        return {
            stage: {pool: random.randint(0, 4) for pool in self._pools if random.random() < 0.6}
            for stage in self._stages
        }
