"""`disagfusion top`."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Annotated

import typer

from disagfusion.cli import fleet
from disagfusion.errors import InvalidArgumentError, UnavailableError

if TYPE_CHECKING:
    from rich.console import Group

    from disagfusion.v1 import fleet_pb2

_STATES = ("ready", "loading", "draining", "quarantined", fleet.LOST)
_ASKED = 200


def top(
    address: fleet.FleetAddress,
    every: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.2)] = 2.0,
    once: Annotated[bool, typer.Option("--once", help="Look once and end.")] = False,
    decisions: Annotated[int, typer.Option(help="How many of the last ones.", min=1)] = 6,
) -> None:
    """Watch a running system: stages, pools, ratio, queues, the bottleneck, the last decisions."""
    from disagfusion.cli.show import output_console

    if not address:
        raise InvalidArgumentError(
            "--fleet", "missing", expected="the address that serve --balance prints"
        )
    console = output_console()
    if once:
        console.print(render(fleet.ask(address, _ASKED), decisions))
        return
    from rich.live import Live
    from rich.text import Text

    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        while True:
            try:
                shown: Group | Text = render(fleet.ask(address, _ASKED), decisions)
            except UnavailableError as error:
                shown = Text(error.message, style="red")
            live.update(shown, refresh=True)
            time.sleep(every)


def render(seen: fleet.Fleet, decisions: int) -> Group:
    """Return what is shown.

    Args:
        seen: The system.
        decisions: How many different ones.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    workers = seen.workers()
    waiting, running = seen.jobs()
    table = Table(box=None, pad_edge=False)
    table.add_column("stage", no_wrap=True)
    table.add_column("pool", no_wrap=True)
    for name in (*_STATES, "waiting", "running"):
        table.add_column(name, justify="right")
    for stage in seen.stages:
        # A stage that nobody serves is the one that people look for.
        pools = sorted({pool for name, pool, _ in workers if name == stage}) or [""]
        for index, pool in enumerate(pools):
            counts = [workers[stage, pool, state] for state in _STATES]
            jobs = [str(waiting[stage]), str(running[stage])] if index == 0 else ["", ""]
            shown = [str(count) if count else "·" for count in counts]
            table.add_row(stage if index == 0 else "", pool or "-", *shown, *jobs)
    ratio = ":".join(
        str(sum(workers[stage, pool, "ready"] for _, pool in _places(workers, stage)))
        for stage in seen.stages
    )
    head = Text(f"ratio {ratio}   unfinished {len(seen.response.jobs)}   ")
    slowest = bottleneck(seen)
    head.append(f"bottleneck {slowest}" if slowest else "nothing waits")
    lost = [Text(line, style="red") for line in losses(seen)]
    lines = [Text(line) for line in summarize(seen.decisions)[:decisions]]
    return Group(head, table, *lost, Text(), *(lines or [Text("no decision yet", style="dim")]))


def losses(seen: fleet.Fleet) -> list[str]:
    """Return a line for each worker that the gateway has lost contact with."""
    return [
        f"{one.name} was lost {one.seconds:.0f} s ago: {one.reason}" for one in seen.response.lost
    ]


def bottleneck(seen: fleet.Fleet) -> str:
    """Return the stage with the most jobs waiting for each worker that is ready."""
    waiting, _ = seen.jobs()
    workers = seen.workers()

    def pressure(stage: str) -> tuple[float, int]:
        ready = sum(workers[place, pool, "ready"] for place, pool in _places(workers, stage))
        return waiting[stage] / ready if ready else math.inf, waiting[stage]

    return max(waiting, key=pressure, default="")


def summarize(decisions: Sequence[fleet_pb2.FleetDecision]) -> list[str]:
    """Return decisions as lines; one for those that follow each other and say the same.

    Args:
        decisions: Newest first.
    """
    lines = []
    for _, alike in itertools.groupby(decisions, key=_says):
        same = list(alike)
        line = describe(same[0])
        lines.append(f"{line}  (since {_clock(same[-1])}, × {len(same)})" if same[1:] else line)
    return lines


def _says(decision: fleet_pb2.FleetDecision) -> tuple[str, str, bytes]:
    # A decision that changes something stands for itself.
    moves = b"".join(move.SerializeToString() for move in decision.moves)
    own = _clock(decision).encode() if moves else b""
    message = "" if decision.reason == "WITHIN_TOLERANCE" else decision.message
    notes = "\n".join(decision.notes)
    return decision.reason, f"{message}\n{notes}" if notes else message, moves + own


def _clock(decision: fleet_pb2.FleetDecision) -> str:
    return decision.time.ToDatetime(tzinfo=UTC).astimezone().strftime("%H:%M:%S")


def describe(decision: fleet_pb2.FleetDecision) -> str:
    """Return a decision as a line, with the local time."""
    at = _clock(decision)
    moves = ", ".join(
        f"{move.count} {move.from_stage or 'new'} → {move.to_stage or 'none'}"
        for move in decision.moves
        if _in_words(move) not in decision.message
    )
    text = f"{at}  {decision.reason}"
    for part in (moves, decision.message, *decision.notes):
        if part:
            text += f"  {part}"
    return text


def _in_words(move: fleet_pb2.FleetMove) -> str:
    source = f"from {move.from_stage}" if move.from_stage else "new"
    return f"{move.count} {source} to {move.to_stage}"


def _places(workers: dict[tuple[str, str, str], int], stage: str) -> set[tuple[str, str]]:
    return {(name, pool) for name, pool, _ in workers if name == stage}
