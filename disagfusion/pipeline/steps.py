"""Progress and cancellation between the steps of a family's own denoising loop."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from disagfusion.errors import JobCancelledError


class StepWatch:
    """Watches the denoising of one request.

    The family's own loop runs unchanged, whatever it does before, between and after its steps;
    only what it calls for each step is wrapped, on copies that belong to the request.

    Args:
        on_step: Called after each step with the number of steps done and the number of all.
        cancelled: Asked before each step.
    """

    def __init__(
        self, on_step: Callable[[int, int], None] | None, cancelled: Callable[[], bool]
    ) -> None:
        self._on_step = on_step
        self._cancelled = cancelled
        self._done = 0

    def check(self) -> None:
        """Raise JobCancelledError where the request was cancelled."""
        if self._cancelled():
            raise JobCancelledError("cancelled between two steps")

    def watched(self, loop: Any) -> Any:
        """Return a copy of a loop block that reports each step and can be stopped between two."""
        watched = copy.copy(loop)
        watches_scheduler = False

        def loop_step(components: Any, state: Any, **kwargs: Any) -> Any:
            nonlocal watches_scheduler
            self.check()
            denoises = "t" in kwargs
            if not denoises and not watches_scheduler:
                # A loop over pieces of a video, each denoised inside one block.
                pieces = getattr(state, "num_latent_chunk", None) or 1
                self._watch_scheduler(components.scheduler, pieces)
                watches_scheduler = True
            result = type(loop).loop_step(watched, components, state, **kwargs)
            if denoises:
                timesteps = getattr(state, "timesteps", None)
                self._advance(len(timesteps) if timesteps is not None else 0)
            return result

        watched.loop_step = loop_step
        return watched

    def _watch_scheduler(self, scheduler: Any, pieces: int) -> None:
        original = scheduler.step

        def step(*args: Any, **kwargs: Any) -> Any:
            self.check()
            result = original(*args, **kwargs)
            self._advance(len(scheduler.timesteps) * pieces)
            return result

        scheduler.step = step

    def _advance(self, total: int) -> None:
        self._done += 1
        if self._on_step is not None:
            self._on_step(self._done, max(self._done, total))
