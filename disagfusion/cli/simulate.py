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
    from rich.console import Console
    from rich.table import Table

    from disagfusion.scheduling.profile import Profile
    from disagfusion.simulation.result import Result
    from disagfusion.simulation.workload import Workload

_GAP = 2
# What goes first where there is no room for every column.
_LESS_NEEDED = ("P50 s", "acc·h", "P99 s", "lost", "moves", "cost")


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
    from disagfusion.cli.show import output_console

    console = output_console()
    print_results(console, workload, profile, results)


def print_results(
    console: Console, workload: Workload, profile: Profile, results: list[Result]
) -> None:
    """Print tables of results; where the console is narrow, with fewer columns."""
    console.print(f"[bold]{workload.name or 'workload'}[/] · {profile.name or 'profile'}")
    left_out: list[str] = []
    columns = {
        "policy": [one.policy for one in results],
        "jobs": [f"{one.completed}" for one in results],
        "lost": [f"{one.lost}" for one in results],
        "last s": [f"{one.last_finish_seconds:.0f}" for one in results],
        **{
            f"{name} s": [f"{one.latency_seconds[name.lower()]:.0f}" for one in results]
            for name in ("P50", "P95", "P99")
        },
        "moves": [f"{one.moves}" for one in results],
        "acc·h": [f"{one.accelerator_seconds / 3600:.2f}" for one in results],
        "cost": [f"{one.cost:.2f}" for one in results],
    }
    if any(one.attainment is not None for one in results):
        shares = (one.attainment for one in results)
        columns["attained"] = ["" if share is None else f"{share:.2f}" for share in shares]
    for name in ("", *_LESS_NEEDED):
        if columns.pop(name, None) is not None:
            left_out.append(name)
        if _width(columns) <= console.width:
            break
    console.print(_table(columns))
    if left_out:
        console.print(f"(no room for {', '.join(left_out)})", highlight=False)
    _print_windows(console, workload, results)
    exceeded = [one.policy for one in results if one.budget_exceeded]
    if exceeded:
        console.print(f"[red]the budget was exceeded by {', '.join(exceeded)}[/]")


def _print_windows(console: Console, workload: Workload, results: list[Result]) -> None:
    windows = [f"{start:g}–{end:g} s" for start, end in workload.measure.windows]
    if not windows:
        return
    columns = {
        "policy": [one.policy for one in results],
        **{
            name: [str(one.finished_in_windows[index]) for one in results]
            for index, name in enumerate(windows)
        },
    }
    if _width(columns) > console.width:
        columns = {
            "between": windows,
            **{one.policy: list(map(str, one.finished_in_windows)) for one in results},
        }
    console.print("\njobs that finished between")
    console.print(_table(columns))


def _width(columns: dict[str, list[str]]) -> int:
    widest = (max(map(len, (name, *cells))) for name, cells in columns.items())
    return sum(width + _GAP for width in widest) - _GAP


def _table(columns: dict[str, list[str]]) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    for index, name in enumerate(columns):
        table.add_column(name, justify="right" if index else "left", no_wrap=True)
    for row in zip(*columns.values(), strict=True):
        table.add_row(*row)
    return table
