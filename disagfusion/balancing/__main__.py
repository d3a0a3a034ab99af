"""The balancer's process: `python -m disagfusion.balancing`, started by the supervisor."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

from pydantic import ValidationError

from disagfusion.balancing.assembly import assemble
from disagfusion.balancing.settings import BalancingSettings
from disagfusion.errors import DisagfusionError
from disagfusion.telemetry import logging

_log = logging.get_logger(__name__)


async def serve(settings: BalancingSettings) -> None:
    """Balance until SIGTERM or SIGINT.

    Raises:
        DisagfusionError: It cannot begin.
    """
    with ExitStack() as stack:
        parts = assemble(settings, stack)
        _log.info(
            "balancer runs",
            workers=len(settings.balanced_workers),
            metrics=parts.metrics_address,
        )
        if settings.ready_file is not None:
            _write_ready(settings.ready_file, parts.metrics_address)
        work = asyncio.create_task(parts.loop.run())
        keeping = asyncio.create_task(parts.keeper.run())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, work.cancel)
        try:
            await work
        except asyncio.CancelledError:
            _log.info("balancer ends")
        finally:
            keeping.cancel()
            await parts.learner.aclose()
            if parts.calibrator is not None:
                await parts.calibrator.aclose()
            await parts.keeper.save()


def _write_ready(path: Path, metrics_address: str) -> None:
    ready = {"pid": os.getpid(), "address": "", "metrics_address": metrics_address}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(ready))
    os.replace(temporary, path)


def main() -> None:
    """Run with settings from the environment."""
    try:
        settings = BalancingSettings()  # type: ignore[call-arg]  # from the environment
        logging.configure(
            settings.log_format,
            settings.log_level,
            component="balancer",
            pipeline=settings.pipeline,
        )
        asyncio.run(serve(settings))
    except ValidationError as error:
        problems = "; ".join(
            f"DISAGFUSION_{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}"
            for e in error.errors()
        )
        sys.exit(f"disagfusion-balancer: {problems}")
    except DisagfusionError as error:
        sys.exit(f"disagfusion-balancer: {error.message}")


if __name__ == "__main__":
    main()
