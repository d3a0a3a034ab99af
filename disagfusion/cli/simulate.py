"""`disagfusion simulate`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from disagfusion.cli import options
from disagfusion.errors import FailedPreconditionError, InvalidArgumentError

if TYPE_CHECKING:
    from disagfusion.scheduling.profile import Profile
    from disagfusion.simulation.result import Result
    from disagfusion.simulation.workload import Workload

_FILE_WIDTH = 160


def simulate(
    workload: Annotated[
        Path, typer.Option(metavar="FILE", help="Jobs, initial ratio, delays, failures.")
    ],
    profile: Annotated[Path, typer.Option(metavar="FILE", help="What the stages cost, and where.")],
    policy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="hybrid, elastic, calibrating, predict, feedback, reference, hpa, plain,"
            " static, static:1:6:1, monolith:NAME; several give a table. [default: hybrid]",
            show_default=False,
        ),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            min=1, help="Accelerators in all. [default: the workload's]", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of what is drawn at random.")] = 0,
    load: Annotated[
        float,
        typer.Option(
            help="Streams are so many times as fast, with as many jobs. Traces, failures,"
            " throttles and windows keep their times."
        ),
    ] = 1.0,
    log: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write each decision with its reason, a JSON object a line."
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Draw replicas, queues and latency over time (PNG, SVG)."
        ),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Run a workload against a policy in simulated time.

    Dispatcher and balancer are those of the real system; replicas are simulated.
    """
    from disagfusion.cli.documents import read, require_planner

    require_planner()
    from disagfusion.scheduling.profile import Profile
    from disagfusion.simulation.workload import Workload

    what = read(Workload, workload)
    costs = read(Profile, profile)
    if budget is not None:
        what = what.model_copy(update={"budget": budget})
    if not 0 < load < math.inf:
        raise InvalidArgumentError("--load", f"{load:g}", expected="a finite number above 0")
    what = what.at_load(load)
    names = policy or ["hybrid"]
    if plot is not None and len(names) > 1:
        raise InvalidArgumentError("--plot", "several policies", expected="one --policy")
    for option, file in (("--log", log), ("--plot", plot)):
        if file is not None:
            _check_writable(option, file)
    results = [_run(name, what, costs, seed) for name in names]
    if log is not None:
        lines = [json.dumps(one) for result in results for one in _decisions(result)]
        try:
            log.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        except OSError as error:
            why = error.strerror or str(error)
            raise FailedPreconditionError(f"--log: {log}: {why}") from error
    if plot is not None:
        from disagfusion.cli.plots import draw

        draw(results[0], what, plot)
    if as_json:
        found = [_as_dict(result) for result in results]
        typer.echo(json.dumps(found[0] if len(found) == 1 else {"results": found}, indent=2))
    else:
        _print(what, costs, results)


def _check_writable(option: str, file: Path) -> None:
    """Refuse before hours are simulated what could not be written afterwards."""
    if file.is_dir() or not file.parent.is_dir():
        why = "is a folder" if file.is_dir() else f"there is no folder {file.parent}"
        raise InvalidArgumentError(option, f"{file}: {why}", expected="a file to be written")


def _run(policy: str, workload: Workload, profile: Profile, seed: int) -> Result:
    from random import Random

    from disagfusion.scheduling.planner import plan
    from disagfusion.simulation.arrivals import demand_of
    from disagfusion.simulation.policies.named import set_up
    from disagfusion.simulation.run import Simulation

    def generator(stream: int) -> Random:
        return Random(f"{seed}/{stream}")  # noqa: S311 -- not a secret

    def planned() -> dict[str, dict[str, int]]:
        return plan(profile, demand_of(workload, generator), workload.budget).replicas

    setup = set_up(policy, profile, workload, planned)
    return Simulation(
        workload,
        setup.profile,
        setup.balancer,
        initial=setup.initial,
        learn=setup.learn,
        generator=generator,
    ).run()


def _as_dict(result: Result) -> dict[str, Any]:
    names = (
        "policy", "submitted", "completed", "lost", "last_finish_seconds", "latency_seconds",
        "attainment", "replica_seconds", "accelerator_seconds", "cost", "moves", "budget_exceeded",
        "most_accelerators", "finished_in_windows",
    )  # fmt: skip
    return {name: getattr(result, name) for name in names}


def _decisions(result: Result) -> list[dict[str, Any]]:
    return [
        {
            "policy": result.policy,
            "at": decision.at,
            "reason": decision.reason.name,
            "message": decision.message,
            "moves": [
                {
                    "from": None if move.source is None else [move.source.stage, move.source.pool],
                    "to": None if move.target is None else [move.target.stage, move.target.pool],
                    "count": move.count,
                }
                for move in decision.moves
            ],
            **({"details": dict(decision.details)} if decision.details else {}),
            **({"notes": list(decision.notes)} if decision.notes else {}),
        }
        for decision in result.decisions
    ]


def _print(workload: Workload, profile: Profile, results: list[Result]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console.width = _FILE_WIDTH
    console.print(f"[bold]{workload.name or 'workload'}[/] · {profile.name or 'profile'}")
    table = Table(box=None, pad_edge=False)
    table.add_column("policy", no_wrap=True)
    columns = ["jobs", "lost", "last s", "P50 s", "P95 s", "P99 s", "moves", "acc·h", "cost"]
    attained = any(result.attainment is not None for result in results)
    windows = list(workload.measure.windows)
    columns += ["attained"] if attained else []
    columns += [f"{start:g}–{end:g} s" for start, end in windows]
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    for one in results:
        latency = one.latency_seconds
        cells = [f"{one.completed}", f"{one.lost}", f"{one.last_finish_seconds:.0f}"]
        cells += [f"{latency[share]:.0f}" for share in ("p50", "p95", "p99")]
        cells += [f"{one.moves}", f"{one.accelerator_seconds / 3600:.2f}", f"{one.cost:.2f}"]
        if attained:
            cells.append("" if one.attainment is None else f"{one.attainment:.2f}")
        table.add_row(one.policy, *cells, *map(str, one.finished_in_windows))
    console.print(table)
    exceeded = [one.policy for one in results if one.budget_exceeded]
    if exceeded:
        console.print(f"[red]the budget was exceeded by {', '.join(exceeded)}[/]")
