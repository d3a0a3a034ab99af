"""`disagfusion plan`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from disagfusion.cli import options

if TYPE_CHECKING:
    from rich.table import Table

    from disagfusion.scheduling.plan import Plan, RunnerUp
    from disagfusion.scheduling.profile import Profile


def plan(
    profile: Annotated[
        Path, typer.Option(metavar="FILE", help="Accelerators, and what stages cost on them.")
    ],
    demand: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The mix of jobs and, if it is to be met at least cost, a rate."
        ),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=0, help="Accelerators in all. [default: all]", show_default=False
        ),
    ] = None,
    current: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Replicas that run, or the plan they came from: of equal plans the nearest.",
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Say how many replicas of each stage to run on which accelerators.

    The answer is proven to be the best: the highest throughput, or the least cost at which the
    demand's rate is met; then the least cost, the fewest accelerators, the fewest changes.
    """
    from disagfusion.cli.documents import read, require_planner

    require_planner()
    from disagfusion.scheduling.demand import Demand
    from disagfusion.scheduling.document import dump_json
    from disagfusion.scheduling.plan import Running
    from disagfusion.scheduling.planner import plan as make_plan
    from disagfusion.scheduling.profile import Profile

    costs = read(Profile, profile)
    found = make_plan(
        costs,
        read(Demand, demand) if demand else None,
        budget,
        read(Running, current).replicas if current else None,
    )
    if as_json:
        typer.echo(dump_json(found))
    else:
        _print(found, costs, moved=current is not None)


def _print(plan: Plan, profile: Profile, *, moved: bool) -> None:
    from disagfusion.cli.show import output_console

    console = output_console()
    console.print(_table(plan, profile))
    lines = [
        ("throughput", f"{plan.throughput:.4g} jobs/s" + ("" if plan.proven else ", not proven")),
        ("bottleneck", plan.bottleneck),
        ("accelerators", f"{plan.accelerators:,}"),
    ]
    if any(pool.cost_per_hour for pool in profile.pools.values()):
        lines.append(("cost", f"{plan.cost_per_hour:,.4g} an hour"))
    if moved:
        lines.append(("moves", f"{plan.moves:,}"))
    lines.append(("why", plan.reason))
    if plan.runner_up is not None:
        lines.append(("runner-up", f"{_ratio(plan.runner_up)}: {plan.runner_up.reason}"))
    console.print()
    for name, text in lines:
        console.print(f"[bold]{name:12}[/] {text}", highlight=False)


def _table(plan: Plan, profile: Profile) -> Table:
    from rich.table import Table

    table = Table("stage", box=None, pad_edge=False, header_style="bold")
    pools = [name for name in profile.pools if any(name in row for row in plan.replicas.values())]
    for name in pools:
        table.add_column(name, justify="right")
    table.add_column("jobs/s", justify="right")
    table.add_column("busy", justify="right")
    for stage, replicas in plan.replicas.items():
        flow = plan.capacity[stage]
        busy = f"{plan.throughput / flow:.0%}" if flow else "–"
        numbers = [f"{replicas[name]:,}" if name in replicas else "–" for name in pools]
        table.add_row(stage, *numbers, f"{flow:.4g}", busy)
    return table


def _ratio(plan: RunnerUp) -> str:
    """Return replicas by stage, such as `1:5:2`, or `4+2:12` where a stage has several pools."""
    return ":".join(
        "+".join(f"{count:,}" for count in pools.values()) or "0"
        for pools in plan.replicas.values()
    )
