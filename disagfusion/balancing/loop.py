"""The balancer's loop: observe, decide, write down, carry out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from disagfusion.scheduling.decision import Balancer, Decision
from disagfusion.scheduling.ports import Actuator, SignalSource

S = TypeVar("S")


class Loop(Generic[S]):
    """Drives a system by a balancer.

    Args:
        balancer: The rule.
        source: The system's signals.
        actuator: Changes the system.
        record: Is told every decision before it is carried out.
        time_scale: Real seconds for one of the balancer's.
    """

    def __init__(
        self,
        balancer: Balancer[S],
        source: SignalSource,
        actuator: Actuator,
        record: Callable[[Decision], Awaitable[None]],
        *,
        time_scale: float,
    ) -> None:
        self._balancer = balancer
        self._source = source
        self._actuator = actuator
        self._record = record
        self._scale = time_scale
        self._state = balancer.initial()
        self._begin = time.monotonic()

    @property
    def now(self) -> float:
        """The time by the balancer's clock, which begins at zero."""
        return (time.monotonic() - self._begin) / self._scale

    async def run(self) -> None:
        """Decide every period until cancelled; a period that was missed is left out."""
        begin = self._begin
        period = self._balancer.period * self._scale
        number = 0
        while True:
            number = max(number + 1, int((time.monotonic() - begin) / period) + 1)
            await asyncio.sleep(begin + number * period - time.monotonic())
            await self.step(self.now)

    async def step(self, now: float) -> Decision:
        """Decide once.

        Args:
            now: Seconds of the balancer's clock.
        """
        observation = await self._source.observe(now)
        self._state, decision = self._balancer.decide(self._state, observation, now)
        await self._record(decision)
        await self._actuator.carry_out(decision, now)
        return decision
