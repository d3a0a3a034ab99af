"""`disagfusion explain`."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from disagfusion.cli import fleet, options

if TYPE_CHECKING:
    from disagfusion.scheduling.demand import Demand
    from disagfusion.scheduling.plan import Plan
    from disagfusion.scheduling.profile import Profile
    from disagfusion.scheduling.sensitivity import TurningPoint
    from disagfusion.v1 import fleet_pb2

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
        typer.Option(metavar="N", min=0, show_default=False,
                     help="Accelerators in all. [default: the running system's budget, or all]"),
    ] = None,
    address: fleet.FleetAddress = "",
    as_json: options.Json = False,
) -> None:  # fmt: skip
    """Say why the ratio is what it is, and what would change it.

    With --fleet the running system is compared with the exact plan for the jobs that it has, within
    its budget.
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
    if budget is None and seen is not None:
        budget = seen.response.budget or None
    current = _ratio_of(seen, costs) if seen is not None else None
    best: Plan | None = None
    points: list[TurningPoint] = []
    if asked is not None or seen is None:
        best = plan(costs, asked, budget, current)
        points = turning_points(costs, asked, budget, best)
    if as_json:
        typer.echo(json.dumps(_as_dict(best, points, current, seen), indent=2))
    else:
        _print(best, points, current, seen)


def _demand_of(seen: fleet.Fleet) -> Demand | None:
    """Return the unfinished jobs as a demand; None where there is none."""
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
        return None
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
    ratio: dict[str, dict[str, int]] = {stage: {} for stage in profile.stages}
    for (stage, pool, state), count in seen.workers().items():
        known = stage in profile.stages and pool in profile.stages[stage].pools
        if known and state in ("ready", "loading"):
            ratio[stage][pool] = ratio[stage].get(pool, 0) + count
    return ratio


def _as_dict(
    best: Plan | None,
    points: list[TurningPoint],
    current: dict[str, dict[str, int]] | None,
    seen: fleet.Fleet | None,
) -> dict[str, Any]:
    from disagfusion.cli.top import losses, summarize

    return {
        "plan": best.model_dump(exclude_none=True) if best is not None else None,
        "turning_points": [asdict(point) for point in points],
        "running": current,
        "lost": losses(seen) if seen else None,
        "apart": apart(current, best, seen.decisions) if current and best and seen else None,
        "decisions": summarize(seen.decisions) if seen else None,
    }


def _print(
    best: Plan | None,
    points: list[TurningPoint],
    current: dict[str, dict[str, int]] | None,
    seen: fleet.Fleet | None,
) -> None:
    from disagfusion.cli.show import output_console
    from disagfusion.cli.top import losses, summarize

    lines = []
    if current is not None:
        lines.append(f"Running: {_say(current)}")
    if seen is not None:
        lines += [f"Lost:    {line}" for line in losses(seen)]
    if best is None:
        lines.append("Best:    no job is unfinished, so there is none; give --demand")
    else:
        lines.append(f"Best:    {_say(best.replicas)}, {best.throughput:.4g} jobs/s")
        if current is not None and seen is not None:
            lines.append(f"Apart:   {apart(current, best, seen.decisions)}")
        lines += _reasons(best, points)
    if seen is not None and seen.decisions:
        lines.append("Last decisions")
        lines += [f"  {line}" for line in summarize(seen.decisions)[:_DECISIONS]]
    console = output_console()
    for line in lines:
        console.print(line, highlight=False, markup=False)


def _reasons(best: Plan, points: list[TurningPoint]) -> list[str]:
    lines = [f"Why:     {best.reason}"]
    if best.runner_up is not None:
        lines.append(f"Next:    {_say(best.runner_up.replicas)}: {best.runner_up.reason}")
    if points:
        lines.append("It would be another")
    lines += [
        f"  if {point.stage} took × {point.factor:.2f}: {_say(point.replicas)},"
        f" {point.throughput:.4g} jobs/s"
        for point in points
    ]
    return lines


def apart(
    current: Mapping[str, Mapping[str, int]],
    best: Plan,
    decisions: Sequence[fleet_pb2.FleetDecision],
) -> str:
    """Say how far a running system is from the best plan, and what made it what it is.

    Args:
        current: Replicas by stage and pool.
        best: The plan.
        decisions: The balancer's last ones, newest first.
    """
    from disagfusion.cli.top import describe

    differences = []
    for stage, wanted in best.replicas.items():
        running = current.get(stage, {})
        for pool in sorted({*wanted, *running}):
            more = wanted.get(pool, 0) - running.get(pool, 0)
            if more:
                kind = "more" if more > 0 else "fewer"
                differences.append(f"{abs(more)} {kind} {stage} on {pool}")
    distance = "nothing: what runs is the best"
    if differences:
        distance = f"the best has {', '.join(differences)}"
    made = next((one for one in decisions if one.moves), None)
    if made is None:
        return f"{distance}; no decision that is remembered changed what runs"
    text = f"{distance}; what runs was made by {describe(made)}"
    return text if made is decisions[0] else f"{text}; now it says {describe(decisions[0])}"


def _say(replicas: Any) -> str:
    return ", ".join(
        f"{stage} {' + '.join(f'{count} {pool}' for pool, count in pools.items() if count) or 0}"
        for stage, pools in replicas.items()
    )
