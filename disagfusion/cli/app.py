"""The command's frame: what all subcommands share. Heavy imports wait for those who need them."""

from __future__ import annotations

import signal
import sys
from typing import Annotated, Any, NoReturn

import typer

from disagfusion.cli import (
    balance,
    doctor,
    explain,
    generate,
    jobs,
    keys,
    plan,
    profile,
    schema,
    serve,
    simulate,
    top,
)
from disagfusion.cli.errors import INTERRUPTED, TERMINATED, exit_status, one_line
from disagfusion.errors import DisagfusionError
from disagfusion.version import __version__

app = typer.Typer(
    name="disagfusion",
    help="Diffusion pipelines served in stages: encoder, DiT and decoder as separate processes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(generate.generate)
app.command()(serve.serve)
app.add_typer(jobs.app, name="jobs")
app.command()(plan.plan)
app.command()(simulate.simulate)
app.command()(explain.explain)
app.command()(top.top)
app.add_typer(balance.app, name="balance")
app.command()(profile.profile)
app.command()(schema.schema)
app.command()(doctor.doctor)
app.add_typer(keys.app, name="keys")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"disagfusion {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    context.obj = debug


def _terminate(*_: Any) -> NoReturn:
    # As an exception, so that what was started is ended in order.
    sys.exit(TERMINATED)


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit.

    Args:
        arguments: What follows the program's name; this process's own by default.
    """
    signal.signal(signal.SIGTERM, _terminate)
    arguments = sys.argv[1:] if arguments is None else arguments
    # Wherever it stands: people add it behind the command that has just failed.
    debug = "--debug" in arguments
    try:
        status = app([one for one in arguments if one != "--debug"], standalone_mode=False)
    except typer.TyperException as error:
        _misused(error)
    except DisagfusionError as error:
        _fail(error, exit_status(error), debug)
    except KeyboardInterrupt as error:
        _fail(error, INTERRUPTED, debug, "interrupted")
    except BrokenPipeError:
        # Whoever read the output has gone; nothing more can be said to them.
        sys.stderr.close()
        sys.exit(1)
    except Exception as error:  # noqa: BLE001 -- the boundary: people get a line, not a traceback
        _fail(error, 1, debug)
    sys.exit(status)


def _misused(error: typer.TyperException) -> NoReturn:
    message = " ".join(str(getattr(error, "format_message", error.__str__)()).split())
    context = getattr(error, "ctx", None)
    if message:
        hint = f"; see {context.command_path} --help" if context else ""
        sys.stderr.write(f"error: {message.rstrip('.')}{hint}\n")
    sys.exit(getattr(error, "exit_code", 2))


def _fail(error: BaseException, status: int, debug: bool, text: str = "") -> NoReturn:
    if debug:
        raise error
    sys.stdout.flush()
    sys.stderr.write(f"error: {text or one_line(error)}\n")
    sys.exit(status)
