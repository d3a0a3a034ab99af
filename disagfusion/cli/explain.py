"""`disagfusion explain`."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from disagfusion.cli import fleet, options
from disagfusion.errors import FailedPreconditionError

if TYPE_CHECKING:
    from disagfusion.scheduling.demand import Demand
    from disagfusion.scheduling.plan import Plan
    from disagfusion.scheduling.profile import Profile
    from disagfusion.scheduling.sensitivity import TurningPoint

_FILE_WIDTH = 120
_ASKED = 200
_DECISIONS = 6


def explain(
    profile: Annotated[Path, typer.Option(metavar="FILE", help="What stages cost, and where.")],
    demand: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The jobs. [default: those of the running system]",
                     show_default=False),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Accelerators in all. [default: all]",
                     show_default=False),
    ] = None,
    address: fleet.FleetAddress = "",
    as_json: options.Json = False,
) -> None:  # fmt: skip
    """Say why the ratio is what it is, and what would change it.

    With --fleet the running system is compared with the exact plan for the jobs that it has.
    """
    from disagfusion.cli.documents import read, require_planner

    require_planner()
    from disagfusion.scheduling.demand import Demand
    from disagfusion.scheduling.planner import plan
    from disagfusion.scheduling.profile import Profile
    from disagfusion.scheduling.sensitivity import turning_points

    costs = read(Profile, profile)
    seen = fleet.ask(address, _ASKED) if address else None
    asked = read(Demand, demand) if demand is not None else None
    if asked is None and seen is not None:
        asked = _demand_of(seen)
    current = _ratio_of(seen, costs) if seen is not None else None
    best = plan(costs, asked, budget, current)
    points = turning_points(costs, asked, budget, best)
    if as_json:
        typer.echo(json.dumps(_as_dict(best, points, current, seen), indent=2))
    else:
        _print(best, points, current, seen)


def _demand_of(seen: fleet.Fleet) -> Demand:
    from disagfusion.scheduling.demand import Demand
    from disagfusion.scheduling.shapes import WeightedShape

    counts: Counter[tuple[int, ...]] = Counter()
    for job in seen.response.jobs:
        shape = job.shape
        counts[
            shape.height, shape.width, shape.num_frames, shape.num_inference_steps,
            shape.batch_size, shape.sequence_length,
        ] += 1  # fmt: skip
    if not counts:
        raise FailedPreconditionError(
            "the running system has no unfinished job to plan for: give --demand"
        )
    names = (
        "height", "width", "num_frames", "num_inference_steps", "batch_size", "sequence_length",
    )  # fmt: skip
    return Demand(
        shapes=tuple(
            WeightedShape(
                **{name: max(1, value) for name, value in zip(names, values, strict=True)},
                weight=count,
            )
            for values, count in counts.items()
        )
    )


def _ratio_of(seen: fleet.Fleet, profile: Profile) -> dict[str, dict[str, int]]:
    ratio: dict[str, dict[str, int]] = {}
    for (stage, pool, state), count in seen.workers().items():
        known = stage in profile.stages and pool in profile.stages[stage].pools
        if known and state in ("ready", "loading"):
            pools = ratio.setdefault(stage, {})
            pools[pool] = pools.get(pool, 0) + count
    return ratio


def _as_dict(
    best: Plan,
    points: list[TurningPoint],
    current: dict[str, dict[str, int]] | None,
    seen: fleet.Fleet | None,
) -> dict[str, Any]:
    from disagfusion.cli.top import summarize

    return {
        "plan": best.model_dump(exclude_none=True),
        "turning_points": [asdict(point) for point in points],
        "running": current,
        "decisions": summarize(seen.decisions) if seen else None,
    }


def _print(
    best: Plan,
    points: list[TurningPoint],
    current: dict[str, dict[str, int]] | None,
    seen: fleet.Fleet | None,
) -> None:
    from rich.console import Console

    from disagfusion.cli.top import summarize

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    if current is not None:
        console.print(f"Running: {_say(current)}")
    console.print(f"Best:    {_say(best.replicas)}, {best.throughput:.4g} jobs/s")
    console.print(f"Why:     {best.reason}")
    if best.runner_up is not None:
        console.print(f"Next:    {_say(best.runner_up.replicas)}: {best.runner_up.reason}")
    if points:
        console.print("It would be another")
    for point in points:
        console.print(
            f"  if {point.stage} took × {point.factor:.2f}: {_say(point.replicas)},"
            f" {point.throughput:.4g} jobs/s"
        )
    if seen is not None and seen.decisions:
        console.print("Last decisions")
        for line in summarize(seen.decisions)[:_DECISIONS]:
            console.print(f"  {line}")


def _say(replicas: Any) -> str:
    return ", ".join(
        f"{stage} {' + '.join(f'{count} {pool}' for pool, count in pools.items() if count) or 0}"
        for stage, pools in replicas.items()
    )
