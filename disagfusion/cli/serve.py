"""`disagfusion serve`."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from disagfusion.cli import options
from disagfusion.errors import InvalidArgumentError

if TYPE_CHECKING:
    from rich.console import Console

    from disagfusion.local import Balance, LocalRuntime, ProcessStatus

EMULATION = "Emulation"
BALANCING = "Balancing"
_REFRESH_SECONDS = 0.5


def serve(
    model: options.Model = None,
    encoders: Annotated[int, typer.Option(help="Encoder services.", min=1)] = 1,
    dits: Annotated[int, typer.Option(help="DiT services.", min=1)] = 1,
    decoders: Annotated[int, typer.Option(help="Decoder services.", min=1)] = 1,
    listen: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="Port 0 takes a free one.")
    ] = "127.0.0.1:7420",
    pipeline: Annotated[
        str | None,
        typer.Option(help="Name to serve it under. [default: the directory's]"),
    ] = None,
    transport: options.Transport = "ucx",
    handover: options.Handover = "async",
    threads: options.Threads = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[WORKERS=]DEVICE",
            rich_help_panel=options.EMBEDDED,
            show_default=False,
            help="torch's name, such as cpu or cuda:0, or emulated:POOL; for all workers, or those"
            " of a stage (dit=…), or one (dit-3=…). May be given several times. [default: cpu]",
        ),
    ] = None,
    dtype: options.DType = None,
    profile: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=EMULATION,
            help="What stages cost on emulated devices; YAML or JSON.",
        ),
    ] = None,
    time_scale: Annotated[
        float,
        typer.Option(
            envvar="DISAGFUSION_TIME_SCALE",
            rich_help_panel=EMULATION,
            help="Seconds for one second of the profile.",
        ),
    ] = 1.0,
    time_noise: Annotated[
        float,
        typer.Option(
            envvar="DISAGFUSION_TIME_NOISE",
            rich_help_panel=EMULATION,
            help="A job's seconds vary by up to this share.",
        ),
    ] = 0.0,
    monolith: Annotated[
        str | None,
        typer.Option(
            metavar="resident|offloading",
            rich_help_panel=EMULATION,
            help="DiTs take the whole pipeline's time; for comparison.",
        ),
    ] = None,
    balance: Annotated[
        bool,
        typer.Option(
            "--balance",
            rich_help_panel=BALANCING,
            help="Let workers change their stage as the work shifts; see docs/balancing.md.",
        ),
    ] = False,
    balance_profile: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=BALANCING,
            help="What stages cost, before jobs have ended; that of emulated devices by default.",
        ),
    ] = None,
    balance_period: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=BALANCING,
            show_default=False,
            help="Seconds of the profile between two decisions. [default: 10]",
        ),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(
            min=1,
            rich_help_panel=BALANCING,
            show_default=False,
            help="Accelerators in use at most. [default: the first workers'; if emulated: all]",
        ),
    ] = None,
    balance_signals: Annotated[
        str | None,
        typer.Option(
            metavar="prometheus:URL",
            rich_help_panel=BALANCING,
            show_default=False,
            help="Where the balancer reads jobs and loads. [default: the gateway is asked]",
        ),
    ] = None,
    signals_window: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=BALANCING,
            show_default=False,
            help="Seconds that Prometheus takes rates over: at least four scrape intervals. Samples"
            " half as old are too old. [default: 60]",
        ),
    ] = None,
    balance_calibration: Annotated[
        bool | None,
        typer.Option(
            "--balance-calibration/--no-balance-calibration",
            rich_help_panel=BALANCING,
            show_default=False,
            help="Whether the balancer tries its own parameters again on recent jobs, in a process"
            " of low priority. [default: it does]",
        ),
    ] = None,
    data_dir: options.DataDir = None,
    logs: options.Logs = False,
    api_keys: Annotated[
        Path | None,
        typer.Option(help="Key file; needed to listen beyond loopback. See `keys create`."),
    ] = None,
    tls_cert: options.TlsCert = None,
    tls_key: options.TlsKey = None,
    tls_ca: options.TlsCa = None,
    tls_server_name: options.TlsServerName = "",
) -> None:
    """Run a gateway and stage services until interrupted (Ctrl-C)."""
    from rich.console import Console

    from disagfusion.local import LocalRuntime

    settings = {**options.engine_settings(None, dtype), "handover": options.handover(handover)}
    if api_keys is not None:
        settings["api_keys"] = str(api_keys.absolute())
    if options.tls_settings(tls_cert, tls_key, tls_ca, tls_server_name):
        files = {"tls_cert": tls_cert, "tls_key": tls_key, "tls_ca": tls_ca}
        settings |= {name: str(path.absolute()) for name, path in files.items() if path}
        settings["tls_server_name"] = tls_server_name
    runtime = LocalRuntime(
        model,
        encoders=encoders,
        dits=dits,
        decoders=decoders,
        transport=transport,
        listen=listen,
        data_dir=data_dir,
        threads=threads,
        pipeline=pipeline,
        device=parse_devices(device or []),
        profile=profile,
        time_scale=time_scale,
        time_noise=time_noise,
        monolith=monolith,
        balance=parse_balance(
            balance,
            balance_profile,
            balance_period,
            budget,
            balance_signals,
            signals_window,
            balance_calibration,
        ),
        settings=settings,
        echo=logs,
    )
    try:
        runtime.start()
        console = Console(stderr=True)
        if profile is not None:
            console.print("emulated accelerators: nothing is computed, and no figure was measured")
        _watch(runtime, console)
    except KeyboardInterrupt:
        typer.echo("ending …", err=True)
    finally:
        runtime.stop()


def parse_balance(
    balance: bool,
    profile: Path | None,
    period: float | None,
    budget: int | None,
    signals: str | None,
    window: float | None,
    calibration: bool | None = None,
) -> Balance | bool:
    """Return how the system is to be balanced.

    Raises:
        InvalidArgumentError: It is not, but is said how; or a number is none that can be.
    """
    given = {
        "--balance-profile": profile, "--balance-period": period, "--budget": budget,
        "--balance-signals": signals, "--signals-window": window,
        "--balance-calibration": calibration,
    }  # fmt: skip
    if not balance:
        for option, value in given.items():
            if value is not None:
                raise InvalidArgumentError(option, "is given", expected="--balance beside it")
        return False
    if window is not None and signals is None:
        raise InvalidArgumentError(
            "--signals-window", "is given", expected="--balance-signals beside it"
        )
    for option, seconds in {"--balance-period": period, "--signals-window": window}.items():
        if seconds is not None and not 0 < seconds < math.inf:
            raise InvalidArgumentError(option, f"{seconds:g}", expected="above 0")
    from disagfusion.local import Balance

    return Balance(
        profile,
        budget,
        {} if period is None else {"period": period},
        signals or "",
        60.0 if window is None else window,
        calibration is not False,
    )


def parse_devices(given: list[str]) -> dict[str, str] | None:
    """Read `[WORKERS=]DEVICE`; what stands without workers is for the stages that are not named.

    Raises:
        InvalidArgumentError: Something is given twice, or empty.
    """
    devices: dict[str, str] = {}
    for text in given:
        workers, _, device = text.rpartition("=")
        if not device or text.startswith("="):
            raise InvalidArgumentError("--device", repr(text), expected="[WORKERS=]DEVICE")
        if workers in devices:
            raise InvalidArgumentError("--device", f"{workers or 'one for all'} is given twice")
        devices[workers] = device
    for_all = devices.pop("", None)
    if for_all is not None:
        devices = {**dict.fromkeys(("encoder", "dit", "decoder"), for_all), **devices}
    return devices or None


def _watch(runtime: LocalRuntime, console: Console) -> None:
    from rich.live import Live

    from disagfusion.cli.show import process_line, process_table

    console.print("starting …")
    runtime.wait_ready()
    # On standard output and by itself, so that a program can read it.
    typer.echo(runtime.address)
    console.print(f"serving on {runtime.address}; Ctrl-C ends it")
    if runtime.internal_address:
        console.print(f"watch it: disagfusion top --fleet {runtime.internal_address}")
        directory = runtime.data_directory
        console.print(f"hold it: disagfusion balance pause --data-dir {directory}", soft_wrap=True)
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                live.update(process_table(runtime.status()), refresh=True)
                time.sleep(_REFRESH_SECONDS)
    before: dict[str, ProcessStatus] = {}
    while True:
        for process in runtime.status():
            if before.get(process.name) != process:
                line = process_line(process, before.get(process.name))
                console.print(line, highlight=False, soft_wrap=True)
            before[process.name] = process
        time.sleep(_REFRESH_SECONDS)
