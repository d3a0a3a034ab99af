"""`disagfusion jobs`."""

from __future__ import annotations

import itertools
import json
from typing import TYPE_CHECKING, Annotated

import typer

from disagfusion.cli import options
from disagfusion.errors import InvalidArgumentError

if TYPE_CHECKING:
    from pathlib import Path

    from disagfusion.client import Client, Job

app = typer.Typer(help="See and end the jobs of a service.", no_args_is_help=True)

DEFAULT_ADDRESS = "127.0.0.1:7420"

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's identifier.")]


def _client(
    address: str | None,
    api_key: str | None,
    cert: Path | None,
    key: Path | None,
    ca: Path | None,
    server_name: str,
) -> Client:
    from disagfusion.client import Client

    return Client(
        address or DEFAULT_ADDRESS,
        api_key=api_key,
        tls=options.tls_settings(cert, key, ca, server_name),
        timeout=10.0,
    )


@app.command("list")
def list_jobs(
    state: Annotated[list[str] | None, typer.Option(help="Only jobs in this state.")] = None,
    limit: Annotated[int, typer.Option(help="How many at most.", min=1)] = 50,
    as_json: options.Json = False,
    address: options.Address = None,
    api_key: options.ApiKey = None,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    tls_ca: options.TlsCa = None,
    tls_server_name: options.TlsServerName = "",
) -> None:
    """List jobs, newest first."""
    from disagfusion.client import JobState

    states = []
    for name in state or []:
        try:
            states.append(JobState(name.upper()))
        except ValueError as error:
            expected = ", ".join(JobState)
            raise InvalidArgumentError("--state", name, expected=expected) from error
    with _client(address, api_key, tls_cert, tls_key, tls_ca, tls_server_name) as client:
        found = client.jobs(states=states, page_size=min(limit, 1000))
        jobs = list(itertools.islice(found, limit))
    if as_json:
        from disagfusion.cli.show import job_dict

        typer.echo(json.dumps({"jobs": [job_dict(job) for job in jobs]}))
        return
    from disagfusion.cli.show import job_table, output_console

    output_console().print(job_table(jobs))


@app.command()
def show(
    job_id: JobId,
    as_json: options.Json = False,
    address: options.Address = None,
    api_key: options.ApiKey = None,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    tls_ca: options.TlsCa = None,
    tls_server_name: options.TlsServerName = "",
) -> None:
    """Show one job and the record of its stages."""
    with _client(address, api_key, tls_cert, tls_key, tls_ca, tls_server_name) as client:
        _show(client.job(job_id).job, as_json)


@app.command()
def cancel(
    job_id: JobId,
    as_json: options.Json = False,
    address: options.Address = None,
    api_key: options.ApiKey = None,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    tls_ca: options.TlsCa = None,
    tls_server_name: options.TlsServerName = "",
) -> None:
    """End a job unless it has ended."""
    with _client(address, api_key, tls_cert, tls_key, tls_ca, tls_server_name) as client:
        job = client.job(job_id).cancel()
    if as_json:
        _show(job, as_json)
    else:
        typer.echo(f"{job.id} {job.state}")


def _show(job: Job, as_json: bool) -> None:
    from disagfusion.cli.show import job_dict, output_console, stage_table

    values = job_dict(job)
    if as_json:
        typer.echo(json.dumps(values))
        return
    from rich.table import Table

    console = output_console()
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in values.items():
        if value not in (None, "", [], 0) and name not in ("stages", "outputs", "error"):
            table.add_row(name.replace("_", " "), str(value))
    for output in job.outputs:
        table.add_row(
            f"output {output.index}", f"{output.content_type}, {output.size_bytes:,} bytes"
        )
    if job.error is not None:
        table.add_row("error", f"{job.error.message} ({job.error.reason})")
    console.print(table)
    if job.stages:
        console.print()
        console.print(stage_table(job.stages))
