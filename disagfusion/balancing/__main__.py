"""The balancer's process: `python -m disagfusion.balancing`, started by the supervisor."""

from __future__ import annotations

import asyncio
import signal
from contextlib import ExitStack

from disagfusion import process
from disagfusion.balancing.assembly import assemble
from disagfusion.balancing.settings import BalancingSettings
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
            process.write_ready(settings.ready_file, metrics_address=parts.metrics_address)
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


def main() -> None:
    """Run with settings from the environment."""
    with process.explained("disagfusion-balancer"):
        settings = BalancingSettings()  # type: ignore[call-arg]  # from the environment
        logging.configure(
            settings.log_format,
            settings.log_level,
            component="balancer",
            pipeline=settings.pipeline,
        )
        asyncio.run(serve(settings))


if __name__ == "__main__":
    main()
