"""`disagfusion keys`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="API keys.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `create` a subcommand although it is the only one."""


@app.command()
def create(
    tenant: Annotated[str, typer.Argument(help="Whose key it is.")],
    file: Annotated[
        Path, typer.Option(help="Key file, for `serve --api-keys`; made if need be.")
    ] = Path("keys.txt"),
) -> None:
    """Make a key for a tenant, add its hash to the key file, and print the key, once."""
    from disagfusion.rpc.auth import create_key

    typer.echo(create_key(file, tenant))
