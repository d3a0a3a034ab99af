"""Simulations in few words."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from disagfusion.scheduling.document import parse, validate
from disagfusion.scheduling.planner import plan
from disagfusion.scheduling.profile import Profile
from disagfusion.simulation.arrivals import demand_of
from disagfusion.simulation.policies.named import set_up
from disagfusion.simulation.result import Result
from disagfusion.simulation.run import Simulation
from disagfusion.simulation.workload import Workload

EXAMPLES = Path(__file__).parents[4] / "examples"


def example_profile(name: str = "wan2.2-i2v-480p") -> Profile:
    path = EXAMPLES / "profiles" / f"{name}.yaml"
    return parse(Profile, path.read_text(), name=path.name)


def example_workload(name: str = "w2") -> Workload:
    path = EXAMPLES / "workloads" / f"{name}.yaml"
    return parse(Workload, path.read_text(), name=path.name)


def workload(**fields: Any) -> Workload:
    given: dict[str, Any] = {"shapes": {"one": {}}, **fields}
    return validate(Workload, given, name="workload")


def profile(seconds: dict[str, float], accelerators: int = 8, **pool: Any) -> Profile:
    """Return a profile with one pool, `a`."""
    stages = {stage: {"pools": {"a": {"seconds": value}}} for stage, value in seconds.items()}
    pools = {"a": {"accelerators": accelerators, **pool}}
    return validate(Profile, {"pools": pools, "stages": stages}, name="profile")


def simulate(
    policy: str,
    what: Workload,
    costs: Profile,
    *,
    seed: int = 0,
    until: float | None = None,
) -> Result:
    def generator(stream: int) -> random.Random:
        return random.Random(f"{seed}/{stream}")

    def planned() -> dict[str, dict[str, int]]:
        return plan(costs, demand_of(what, generator), what.budget, compare=False).replicas

    setup = set_up(policy, costs, what, planned)
    return Simulation(
        what,
        setup.profile,
        setup.balancer,
        initial=setup.initial,
        generator=generator,
        learn=setup.learn,
        until=until,
    ).run()
