"""Options that several commands share, and how they become objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from disagfusion.errors import InvalidArgumentError

if TYPE_CHECKING:
    from disagfusion.rpc.tls import TlsSettings

SERVICE = "Service"
EMBEDDED = "Embedded system"

Address = Annotated[
    str | None,
    typer.Option(
        envvar="DISAGFUSION_ADDRESS", metavar="HOST:PORT", rich_help_panel=SERVICE,
        help="The service to talk to.",
    ),
]  # fmt: skip
ApiKey = Annotated[
    str | None,
    typer.Option(
        envvar="DISAGFUSION_API_KEY", show_envvar=True, rich_help_panel=SERVICE,
        help="Sent with every call.",
    ),
]  # fmt: skip
TlsCert = Annotated[
    Path | None, typer.Option(help="PEM certificate of this side.", rich_help_panel=SERVICE)
]
TlsKey = Annotated[Path | None, typer.Option(help="PEM key of it.", rich_help_panel=SERVICE)]
TlsCa = Annotated[
    Path | None, typer.Option(help="PEM authorities to trust.", rich_help_panel=SERVICE)
]
TlsServerName = Annotated[
    str,
    typer.Option(
        help="Expected in the other side's certificate instead of its address.",
        rich_help_panel=SERVICE,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="DIR", rich_help_panel=EMBEDDED,
        help="A diffusers directory or hub id. [default: the small digits model]",
    ),
]  # fmt: skip
Transport = Annotated[
    str, typer.Option(help="What carries tensors: ucx or tcp.", rich_help_panel=EMBEDDED)
]
Threads = Annotated[
    int | None,
    typer.Option(
        help="Threads of each engine. [default: 1; DiTs share the cores but one]",
        rich_help_panel=EMBEDDED, show_default=False,
    ),
]  # fmt: skip
Device = Annotated[
    str | None,
    typer.Option(help="torch's name, such as cpu or cuda:0.", rich_help_panel=EMBEDDED),
]
DType = Annotated[
    str | None,
    typer.Option(help="float32, float16 or bfloat16.", rich_help_panel=EMBEDDED),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        help="Keep jobs, results and logs here. [default: temporary]",
        rich_help_panel=EMBEDDED, show_default=False,
    ),
]  # fmt: skip
Logs = Annotated[
    bool,
    typer.Option("--logs", help="Show the processes' logs.", rich_help_panel=EMBEDDED),
]
Handover = Annotated[
    str,
    typer.Option(
        metavar="async|sync",
        help="sync: every stage waits for every hand-over; for comparison.",
        rich_help_panel=EMBEDDED,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def tls_settings(
    cert: Path | None, key: Path | None, ca: Path | None, server_name: str
) -> TlsSettings | None:
    """Return the TLS settings of three files; None where none is given.

    Raises:
        InvalidArgumentError: Only some of them are given.
    """
    if not (cert or key or ca):
        return None
    if not (cert and key and ca):
        raise InvalidArgumentError(
            "--tls-*", "incomplete", expected="--tls-cert, --tls-key and --tls-ca together"
        )
    from disagfusion.client import TlsSettings

    return TlsSettings(cert=cert, key=key, ca=ca, server_name=server_name)


def engine_settings(device: str | None, dtype: str | None) -> dict[str, str]:
    """Return settings for the embedded system's processes."""
    given = {"device": device, "dtype": dtype}
    return {name: value for name, value in given.items() if value is not None}


def handover(value: str) -> str:
    """Return how stages hand over.

    Raises:
        InvalidArgumentError: There is no such way.
    """
    if value not in ("async", "sync"):
        raise InvalidArgumentError("--handover", repr(value), expected="async or sync")
    return value


def parse_parameters(given: list[str]) -> dict[str, Any]:
    """Read `name=value` pairs.

    A value that is JSON is taken as such (`0.5`, `true`, `[1, 2]`, `"5"`), one that begins with @
    is an input picture's path, anything else is a string.

    Raises:
        InvalidArgumentError: There is no equals sign, or a name twice.
    """
    parameters: dict[str, Any] = {}
    for pair in given:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise InvalidArgumentError("-p", repr(pair), expected="name=value")
        if name in parameters:
            raise InvalidArgumentError("-p", f"{name} is given twice")
        if text.startswith("@"):
            parameters[name] = Path(text[1:])
            continue
        try:
            parameters[name] = json.loads(text)
        except ValueError:
            parameters[name] = text
    return parameters
