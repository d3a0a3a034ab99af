"""Progress and cancellation, with loops in the place of diffusers'."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from disagfusion.errors import JobCancelledError
from disagfusion.pipeline.steps import StepWatch


class Loop:
    """A loop block as diffusers writes them."""

    def loop_step(self, components: Any, state: Any, **kwargs: Any) -> tuple[Any, Any]:
        state.seen.append(kwargs)
        return components, state


class Scheduler:
    timesteps = (3, 2, 1)

    def step(self, value: int) -> int:
        return value + 1


class ChunkLoop(Loop):
    """A loop over pieces of a video, each denoised inside one block."""

    def loop_step(self, components: Any, state: Any, **kwargs: Any) -> tuple[Any, Any]:
        for _ in components.scheduler.timesteps:
            state.value = components.scheduler.step(state.value)
        return components, state


def test_each_step_is_told_and_the_loop_itself_is_left_alone() -> None:
    loop, told = Loop(), []
    watched = StepWatch(lambda i, n: told.append((i, n)), lambda: False).watched(loop)
    state = SimpleNamespace(seen=[], timesteps=(9, 5, 1))
    for i, t in enumerate(state.timesteps):
        watched.loop_step(None, state, i=i, t=t)
    assert told == [(1, 3), (2, 3), (3, 3)]
    assert state.seen == [{"i": i, "t": t} for i, t in enumerate((9, 5, 1))]
    assert "loop_step" not in vars(loop)


def test_cancelling_stops_before_the_next_step() -> None:
    told: list[int] = []
    watch = StepWatch(lambda i, n: told.append(i), lambda: len(told) == 1)
    watched = watch.watched(Loop())
    state = SimpleNamespace(seen=[], timesteps=(2, 1))
    watched.loop_step(None, state, i=0, t=2)
    with pytest.raises(JobCancelledError):
        watched.loop_step(None, state, i=1, t=1)
    assert len(state.seen) == 1
    with pytest.raises(JobCancelledError):
        watch.check()


def test_a_loop_over_chunks_tells_the_steps_of_its_scheduler() -> None:
    told: list[tuple[int, int]] = []
    watched = StepWatch(lambda i, n: told.append((i, n)), lambda: False).watched(ChunkLoop())
    state = SimpleNamespace(num_latent_chunk=2, value=0)
    components = SimpleNamespace(scheduler=Scheduler())
    for k in range(2):
        watched.loop_step(components, state, k=k)
    assert told == [(i, 6) for i in range(1, 7)]
    assert state.value == 6


def test_a_chunk_is_left_between_two_of_its_steps() -> None:
    told: list[int] = []
    watch = StepWatch(lambda i, n: told.append(i), lambda: len(told) == 2)
    state = SimpleNamespace(num_latent_chunk=1, value=0)
    with pytest.raises(JobCancelledError):
        watch.watched(ChunkLoop()).loop_step(SimpleNamespace(scheduler=Scheduler()), state, k=0)
    assert told == [1, 2]


def test_nobody_has_to_listen() -> None:
    state = SimpleNamespace(seen=[], timesteps=None, num_inference_steps=4)
    StepWatch(None, lambda: False).watched(Loop()).loop_step(None, state, i=0, t=0)
    assert len(state.seen) == 1
