"""Prometheus as the source of a balancer's signals."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from disagfusion.scheduling.observation import Observation, Predictor, Replicas
from disagfusion.scheduling.ports import SignalSource
from disagfusion.signals.prometheus import PrometheusSignals


class PrometheusSource(SignalSource):
    """Takes jobs and loads from Prometheus, and from the actuator what it has started itself.

    Args:
        signals: The pipeline in Prometheus; to be closed by whoever made it.
        replicas: Returns stage → pool → replicas, those that no gateway has seen included.
        accelerators: Returns pool → accelerators that can be used.
        predictor: Returns what is known of how long stages take.
    """

    def __init__(
        self,
        signals: PrometheusSignals,
        *,
        replicas: Callable[[], Mapping[str, Mapping[str, Replicas]]],
        accelerators: Callable[[], Mapping[str, int]],
        predictor: Callable[[], Predictor | None] = lambda: None,
    ) -> None:
        self._signals = signals
        self._replicas = replicas
        self._accelerators = accelerators
        self._predictor = predictor

    async def observe(self, now: float) -> Observation:
        """See `SignalSource`; takes as long as Prometheus takes to answer or to time out."""
        return await asyncio.to_thread(
            self._signals.observe,
            now,
            self._accelerators(),
            replicas=self._replicas(),
            predictor=self._predictor(),
        )
