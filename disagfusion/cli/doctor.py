"""`disagfusion doctor`."""

from __future__ import annotations

import dataclasses
import json

import typer

from disagfusion.cli import options


def doctor(as_json: options.Json = False) -> None:
    """Say what is installed, what works on this machine, and how to get what is missing.

    Exits with 1 if something is missing that `generate` and `serve` need.
    """
    from disagfusion.cli.checks import Level, run_checks

    checks = run_checks()
    failed = any(check.level is Level.MISSING for check in checks)
    if as_json:
        typer.echo(
            json.dumps({"ok": not failed, "checks": [dataclasses.asdict(one) for one in checks]})
        )
    else:
        from rich.console import Console
        from rich.table import Table

        table = Table("", "what", "found", box=None, pad_edge=False)
        marks = {Level.OK: "[green]✓[/]", Level.WARNING: "[yellow]![/]", Level.MISSING: "[red]✗[/]"}
        for check in checks:
            found = check.detail + (f"\n→ {check.remedy}" if check.remedy else "")
            table.add_row(marks[check.level], check.name, found)
        Console().print(table)
    if failed:
        raise typer.Exit(1)
