"""The work that is left, by stage and pool, for those who scrape."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future

from disagfusion.jobs.model import Stage
from disagfusion.v1 import stage_pb2

Backlog = dict[tuple[str, str, str], float]
"""By pipeline, stage and pool, in seconds."""

_PATIENCE_SECONDS = 2.0


def by_pool(
    seconds: Mapping[tuple[str, Stage], float],
    pipeline: str,
    workers: Iterable[stage_pb2.Worker],
) -> Backlog:
    """Divide each stage's work among the pools that will do it.

    The seconds of a stage are its work on average over its workers, such that so many seconds over
    so many workers is when all of it is done (`Dispatcher.backlog`). If all workers are to end
    together, each has an equal part of that: a pool's part is that of its workers.

    Args:
        seconds: By pipeline and stage.
        pipeline: Whose stages are known to have no work where nothing is said of them.
        workers: Those that are connected.

    Returns:
        The parts; with no pool (an empty name) where a stage has no worker.
    """
    total = {(pipeline, stage): 0.0 for stage in Stage} | dict(seconds)
    places = Counter(
        (one.pipeline, Stage(stage), one.pool) for one in workers for stage in one.stages
    )
    found: Backlog = {}
    for (name, stage), left in total.items():
        pools = {
            pool: count
            for (one, number, pool), count in places.items()
            if one == name and number is stage
        } or {"": 1}
        for pool, count in pools.items():
            part = count / sum(pools.values())
            found[name, stage.name.lower(), pool] = left * part
    return found


class FromOtherThreads:
    """Asks for what only the event loop's thread may ask for; scrapes come on threads of their own.

    Args:
        ask: Called on the loop that runs now.
        patience: Seconds that the loop may be busy with other things.
    """

    def __init__(self, ask: Callable[[], Backlog], patience: float = _PATIENCE_SECONDS) -> None:
        self._ask = ask
        self._loop = asyncio.get_running_loop()
        self._patience = patience

    def __call__(self) -> Backlog:
        """Return the answer; nothing where there is none in time, which is not zero."""
        answer: Future[Backlog] = Future()
        try:
            self._loop.call_soon_threadsafe(self._answer, answer)
        except RuntimeError:  # the loop is closed
            return {}
        try:
            return answer.result(self._patience)
        except TimeoutError:
            answer.cancel()
            return {}

    def _answer(self, answer: Future[Backlog]) -> None:
        if answer.set_running_or_notify_cancel():
            try:
                answer.set_result(self._ask())
            except Exception as error:  # noqa: BLE001 - whoever waits for the answer raises it
                answer.set_exception(error)
