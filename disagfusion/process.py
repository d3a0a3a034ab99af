"""What the processes have in common: how they say that they run, and why they end."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pydantic import ValidationError

from disagfusion import termination
from disagfusion.errors import DisagfusionError, FailedPreconditionError
from disagfusion.telemetry import metrics


@contextmanager
def explained(program: str, prefix: str = "DISAGFUSION_") -> Iterator[None]:
    """End the process with one line where its settings are wrong, or it cannot do its work.

    Args:
        program: What the line begins with.
        prefix: Of the environment variables that the settings come from.

    Raises:
        SystemExit: Settings are not valid, or a DisagfusionError was raised; with status 1.
    """
    try:
        yield
    except ValidationError as error:
        problems = "; ".join(
            f"{prefix}{'.'.join(map(str, one['loc'])).upper()}: {one['msg']}"
            for one in error.errors()
        )
        sys.exit(termination.fail(f"{program}: {problems}"))
    except DisagfusionError as error:
        sys.exit(termination.fail(f"{program}: {error.message}"))


def write_ready(path: Path, *, metrics_address: str, address: str = "") -> None:
    """Tell a supervisor that this process runs; the file is there whole or not at all.

    Args:
        path: The file that the supervisor waits for.
        metrics_address: Where the process's metrics are; empty for nowhere.
        address: Where it listens; empty for nowhere.
    """
    ready = {"pid": os.getpid(), "address": address, "metrics_address": metrics_address}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(ready))
    os.replace(temporary, path)


def serve_metrics(listen: str, registry: metrics.CollectorRegistry) -> metrics.MetricsServer:
    """Serve a process's metrics; see `metrics.serve`.

    Raises:
        FailedPreconditionError: The address cannot be used, or is none.
    """
    try:
        return metrics.serve(listen, registry)
    except (OSError, ValueError) as error:
        raise FailedPreconditionError(
            f"cannot serve metrics on {listen}: {error}", reason="ADDRESS_UNUSABLE"
        ) from error
