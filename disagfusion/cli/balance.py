"""`disagfusion balance`: a person's hand on a running balancer."""

from __future__ import annotations

import getpass
import json
import os
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from disagfusion.errors import FailedPreconditionError, InvalidArgumentError

app = typer.Typer(
    help="Hold the ratio of a running `serve --balance`, and let it go.", no_args_is_help=True
)

DataDir = Annotated[
    Path,
    typer.Option(
        envvar="DISAGFUSION_DATA_DIR",
        metavar="DIR",
        help="The system's data directory; `serve` prints it where it has none given.",
    ),
]
_TAIL_BYTES = 65536


@app.command()
def pause(
    data_dir: DataDir,
    why: Annotated[str, typer.Option(help="For those who wonder; shown by `top`.")] = "",
) -> None:
    """Hold the ratio from the next decision on, until `resume`; also through restarts.

    What has begun comes to its end. Workers that die come back as what they were.
    """
    from disagfusion.local.hold import Hold, write_hold

    file = _hold_file(data_dir)
    try:
        write_hold(file, Hold(_user(), " ".join(why.split()), time.time()))
    except OSError as error:
        raise FailedPreconditionError(f"{file} cannot be written: {error.strerror}") from error
    typer.echo("held from the next decision on")


@app.command()
def resume(data_dir: DataDir) -> None:
    """Let the ratio go: the balancer changes it again from the next decision on."""
    file = _hold_file(data_dir)
    try:
        file.unlink()
    except FileNotFoundError:
        typer.echo("it was not held")
        return
    except OSError as error:
        raise FailedPreconditionError(f"{file} cannot be removed: {error.strerror}") from error
    typer.echo("balanced again from the next decision on")


@app.command()
def status(data_dir: DataDir) -> None:
    """Say whether the ratio is held, and what was decided last."""
    from disagfusion.local.hold import read_hold

    hold = read_hold(_hold_file(data_dir))
    since = f", since {_clock(hold.since)}" if hold is not None and hold.since else ""
    typer.echo("not held" if hold is None else f"{hold}{since}")
    last = _last_decision(data_dir / "decisions.jsonl")
    if last is not None:
        typer.echo(f"last decision: {last['reason']}, {last['message']}, {_clock(last['time'])}")


def _hold_file(data_dir: Path) -> Path:
    from disagfusion.local.hold import HOLD_FILE

    # Each of them has one; in any other directory nobody would look for the file.
    if not (data_dir / "results").is_dir():
        raise InvalidArgumentError(
            "--data-dir", str(data_dir), expected="the data directory of `disagfusion serve`"
        )
    return data_dir / HOLD_FILE


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _last_decision(log: Path) -> dict[str, Any] | None:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            lines = file.read().splitlines()
        found = json.loads(lines[-1]) if lines else None
    except (OSError, ValueError):
        return None
    return (
        found if isinstance(found, dict) and {"reason", "message", "time"} <= set(found) else None
    )


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
