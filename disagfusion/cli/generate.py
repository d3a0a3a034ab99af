"""`disagfusion generate`."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from disagfusion.cli import options
from disagfusion.errors import InvalidArgumentError

if TYPE_CHECKING:
    from rich.console import Console

    from disagfusion.client import GenerationResult
    from disagfusion.local import LocalRuntime

_FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp", ".mp4": "mp4"}
_REQUEST = "Request"


def generate(
    prompt: Annotated[str, typer.Argument(help="What to make.")],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", metavar="FILE",
            help="Where to write it. Of several results each gets a number: FILE-0.png, …",
        ),
    ] = Path("output"),
    negative_prompt: Annotated[str | None, typer.Option(rich_help_panel=_REQUEST)] = None,
    image: Annotated[
        list[Path] | None, typer.Option(help="Input picture.", rich_help_panel=_REQUEST)
    ] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.", rich_help_panel=_REQUEST)] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.", rich_help_panel=_REQUEST)] = None,
    num_frames: Annotated[int | None, typer.Option(rich_help_panel=_REQUEST)] = None,
    num_inference_steps: Annotated[
        int | None,
        typer.Option("--num-inference-steps", "--steps", rich_help_panel=_REQUEST),
    ] = None,
    guidance_scale: Annotated[float | None, typer.Option(rich_help_panel=_REQUEST)] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed, the same result.", rich_help_panel=_REQUEST)
    ] = None,
    num_images_per_prompt: Annotated[
        int | None, typer.Option("--num-images-per-prompt", "-n", rich_help_panel=_REQUEST)
    ] = None,
    output_format: Annotated[
        str | None,
        typer.Option(
            help="png, jpeg, webp or mp4. [default: what FILE ends in]",
            rich_help_panel=_REQUEST, show_default=False,
        ),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(help="Seconds that the job may take.", rich_help_panel=_REQUEST),
    ] = None,
    priority: Annotated[
        int, typer.Option(help="−100 to 100, higher first.", rich_help_panel=_REQUEST)
    ] = 0,
    client_request_id: Annotated[
        str | None,
        typer.Option(help="Makes the command safe to repeat.", rich_help_panel=_REQUEST),
    ] = None,
    pipeline: Annotated[
        str, typer.Option(help="Where several are served.", rich_help_panel=_REQUEST)
    ] = "",
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter", "-p", metavar="NAME=VALUE", rich_help_panel=_REQUEST,
            help="Whatever else the pipeline takes; NAME=@FILE for a picture.",
        ),
    ] = None,
    as_json: options.Json = False,
    address: options.Address = None,
    api_key: options.ApiKey = None,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    tls_ca: options.TlsCa = None,
    tls_server_name: options.TlsServerName = "",
    model: options.Model = None,
    transport: options.Transport = "ucx",
    threads: options.Threads = None,
    device: options.Device = None,
    dtype: options.DType = None,
    data_dir: options.DataDir = None,
    logs: options.Logs = False,
) -> None:  # fmt: skip
    """Make a picture or a video.

    Without --address, gateway and stages are started for the purpose and ended afterwards.
    """
    _check_output(output)
    request: dict[str, Any] = {
        "negative_prompt": negative_prompt,
        "image": image or None,
        "height": height,
        "width": width,
        "num_frames": num_frames,
        "num_inference_steps": num_inference_steps,
        "guidance_scale": guidance_scale,
        "seed": seed,
        "num_images_per_prompt": num_images_per_prompt,
        "output_format": output_format or _FORMATS.get(output.suffix.lower()),
        "timeout": timeout,
        "priority": priority,
        "client_request_id": client_request_id,
        "pipeline": pipeline,
        "parameters": options.parse_parameters(parameter or []),
    }
    runtime: LocalRuntime | None = None
    if address is None:
        from disagfusion.local import LocalRuntime

        runtime = LocalRuntime(
            model,
            transport=transport,
            threads=threads,
            data_dir=data_dir,
            settings=options.engine_settings(device, dtype),
            echo=logs,
            stop_grace=1.0,
        )
    connection = {
        "api_key": api_key,
        "tls": options.tls_settings(tls_cert, tls_key, tls_ca, tls_server_name),
    }
    _generate(prompt, request, output, runtime, address, connection, as_json)


def _generate(
    prompt: str,
    request: dict[str, Any],
    output: Path,
    runtime: LocalRuntime | None,
    address: str | None,
    connection: dict[str, Any],
    as_json: bool,
) -> None:
    from rich.console import Console

    console = Console(stderr=True)
    with _service(runtime, address, console) as where:
        from disagfusion.cli.show import JobProgress
        from disagfusion.client import Client

        with Client(where, **connection) as client, JobProgress(console) as progress:
            began = time.monotonic()
            result = client.generate(prompt, on_event=progress.update, **request)
            paths = result.save(output)
            seconds = time.monotonic() - began
    _report(result, paths, seconds, console, as_json)


@contextlib.contextmanager
def _service(runtime: LocalRuntime | None, address: str | None, console: Console) -> Iterator[str]:
    if runtime is None:
        assert address is not None
        yield address
        return
    status = (
        console.status("starting gateway and stages …")
        if console.is_terminal
        else contextlib.nullcontext()
    )
    try:
        runtime.start()
        with status:
            # What the client needs is imported while the processes import what they need.
            import disagfusion.client.grpc_transport  # noqa: F401

            runtime.wait_ready()
        yield runtime.address
    finally:
        runtime.stop()


def _check_output(output: Path) -> None:
    if not output.name or output.is_dir():
        raise InvalidArgumentError("--output", f"{output} is a directory", expected="a file")
    if not output.absolute().parent.is_dir():
        raise InvalidArgumentError("--output", f"there is no directory {output.parent}")
    if output.suffix and output.suffix.lower() not in _FORMATS:
        expected = ", ".join(_FORMATS)
        raise InvalidArgumentError("--output", f"{output.suffix} is unknown", expected=expected)


def _report(
    result: GenerationResult,
    paths: list[Path],
    seconds: float,
    console: Console,
    as_json: bool,
) -> None:
    from disagfusion.cli.show import stage_dict, stage_table

    if as_json:
        answer = {
            "id": result.job.id,
            "outputs": [str(path) for path in paths],
            "seed": result.seed,
            "total_seconds": seconds,
            "stages": [stage_dict(record) for record in result.stages],
        }
        typer.echo(json.dumps(answer))
        return
    console.print(stage_table(result.stages))
    console.print(f"seed {result.seed}, {seconds:.2f} s in all")
    for path in paths:
        typer.echo(path)
