"""`python -m benchmarks.overlapkit.worker`: a DiT's front whose inputs come over a shaped link."""

from __future__ import annotations

import asyncio
import json
import os

from disagfusion.pipeline.stages import Stage
from disagfusion.stage.app import StageService
from disagfusion.stage.command import serve
from disagfusion.stage.settings import StageSettings
from disagfusion.telemetry import logging
from disagfusion.transport import TransportSettings, create
from disagfusion.transport.api import Inbox, Transport
from disagfusion.transport.digest import Hold
from disagfusion.transport.settings import Observer
from disagfusion.transport.testing import LinkShape, ShapedTransport

# The shape of the link as JSON, and the engine's class.
SHAPE = "OVERLAP_SHAPE"
ENGINE = "OVERLAP_ENGINE"


class ShapedService(StageService):
    """A stage service, otherwise the product's own."""

    def _make_transport(self, settings: TransportSettings, observer: Observer) -> Transport:
        def make(inbox: Inbox, hold: Hold) -> Transport:
            return create(
                self._settings.transport,
                inbox,
                incarnation=self._incarnation,
                settings=settings,
                observer=observer,
                hold=hold,
            )

        shape = LinkShape(**json.loads(os.environ[SHAPE]))
        return ShapedTransport(make, self.front, shape, seed=1)


def main() -> None:
    """Serve until SIGTERM."""
    settings = StageSettings()
    logging.configure(settings.log_format, settings.log_level, component="dit")
    service = ShapedService(Stage.DIT, os.environ[ENGINE], settings)
    asyncio.run(serve(service, settings.ready_file))


if __name__ == "__main__":
    main()
