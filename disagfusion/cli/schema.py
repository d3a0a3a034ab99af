"""`disagfusion schema`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from disagfusion.errors import InvalidArgumentError

NAMES = ("demand", "plan", "profile", "workload")


def schema(
    name: Annotated[str, typer.Argument(metavar="|".join(NAMES), help="Of what.")],
) -> None:
    """Print the JSON Schema of a kind of file, for editors and checks."""
    typer.echo(render(name), nl=False)


def render(name: str) -> str:
    """Return a schema as it is printed.

    Raises:
        InvalidArgumentError: There is no such kind.
    """
    from disagfusion.cli.documents import require_planner

    require_planner()
    from disagfusion.scheduling.demand import Demand
    from disagfusion.scheduling.document import Document
    from disagfusion.scheduling.plan import Plan
    from disagfusion.scheduling.profile import Profile
    from disagfusion.simulation.workload import Workload

    kinds: dict[str, type[Document]] = {
        "demand": Demand,
        "plan": Plan,
        "profile": Profile,
        "workload": Workload,
    }
    if name not in kinds:
        raise InvalidArgumentError("NAME", repr(name), expected=", ".join(NAMES))
    found: dict[str, Any] = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    found |= kinds[name].model_json_schema()
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"
