"""Saves what the balancer has learned: now and then, and at the end."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from disagfusion.balancing.learner import Learner
from disagfusion.balancing.memory import MemoryDocument, save
from disagfusion.balancing.signals import EmbeddedSignals
from disagfusion.scheduling.performance.exchange import SnapshotDocument
from disagfusion.scheduling.performance.model import PerformanceModel
from disagfusion.scheduling.performance.samples import SampleSnapshot
from disagfusion.telemetry.logging import get_logger

_EVERY_SECONDS = 60.0

_log = get_logger(__name__)


class Keeper:
    """Writes a file whenever there is something new, at most once a minute.

    Args:
        file: Where; None: nothing is saved.
        pipeline: Whose it is.
        learner: Has samples and the model.
        signals: Know up to where the learner has learned.
        parameters: Returns the balancer's, as calibration changed them.
        now: Returns the time by the balancer's clock.
    """

    def __init__(
        self,
        file: Path | None,
        pipeline: str,
        learner: Learner,
        signals: EmbeddedSignals,
        parameters: Callable[[], Mapping[str, float]],
        now: Callable[[], float],
    ) -> None:
        self._file = file
        self._pipeline = pipeline
        self._learner = learner
        self._signals = signals
        self._parameters = parameters
        self._now = now
        self._saved = self._state()

    async def run(self) -> None:
        """Save now and then, until cancelled."""
        while True:
            await asyncio.sleep(_EVERY_SECONDS)
            await self.save()

    async def save(self) -> None:
        """Save what there is, if it is new; a disk that is full is logged."""
        state = self._state()
        if self._file is None or state == self._saved:
            return
        # All of one moment: what comes while it is written is for the next time.
        now, gateway = self._now(), self._signals.learned_from
        snapshot, model = self._learner.snapshot(now), self._learner.model
        parameters = dict(self._parameters())
        try:
            await asyncio.to_thread(
                self._write, self._file, now, gateway, snapshot, model, parameters
            )
        except OSError as error:
            problem = error.strerror or str(error)
            _log.warning("what was learned was not saved", file=str(self._file), problem=problem)
        else:
            self._saved = state

    def _write(
        self,
        file: Path,
        now: float,
        gateway: tuple[str, int],
        snapshot: SampleSnapshot,
        model: PerformanceModel,
        parameters: dict[str, float],
    ) -> None:
        document = MemoryDocument(
            pipeline=self._pipeline,
            saved_at=time.time(),
            now=now,
            gateway=gateway[0],
            samples_cursor=gateway[1],
            model=model.to_document(),
            samples=SnapshotDocument.of(snapshot),
            parameters=parameters,
        )
        save(file, document)

    def _state(self) -> tuple[int, int, dict[str, float]]:
        version = self._learner.model.version
        return self._learner.observed, version, dict(self._parameters())
