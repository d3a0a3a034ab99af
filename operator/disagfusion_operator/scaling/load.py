"""What Prometheus says of all pipelines, asked in the background."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from pydantic import SecretStr, ValidationError

from disagfusion.scheduling.observation import Missing
from disagfusion.scheduling.prometheus.answers import Outcome
from disagfusion.scheduling.prometheus.queries import QUERIES, Scope
from disagfusion.signals.prometheus import PrometheusClient
from disagfusion.signals.settings import Authorization, PrometheusSettings
from disagfusion.signals.shared import SharedQuestions
from disagfusion_operator.scaling.view import Key

NAMESPACE_LABEL = "namespace"
"""That a PodMonitor gives to all series of a pod."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where and how the load of a pipeline is asked for.

    Attributes:
        url: Of Prometheus.
        token: Sent with every question; empty: none.
        matchers: Further ones of the series.
        window: Seconds over which rates are taken.
        period: Seconds between two questions.
    """

    url: str
    token: str = field(default="", repr=False)
    matchers: tuple[str, ...] = ()
    window: float = 60.0
    period: float = 10.0

    @property
    def scope(self) -> Scope:
        """What all questions have in common."""
        return Scope("", self.window, self.window / 2.0, self.matchers)


@dataclass(frozen=True, slots=True)
class Answers:
    """What came of all questions about one pipeline.

    Attributes:
        at: When they were asked, in Unix seconds.
        outcomes: By the name of the query.
    """

    at: float
    outcomes: Mapping[str, Outcome]


class Asker(Protocol):
    """Asks about several pipelines at once; called in a thread."""

    def ask(
        self, pipelines: Sequence[tuple[str, str]], scope: Scope
    ) -> Mapping[tuple[str, str], Mapping[str, Outcome]]:
        """Return what came of each query, for each (namespace, name)."""
        ...


class Load:
    """Keeps the last answers about every pipeline that is watched.

    Args:
        make: Makes who asks a source; by default over HTTP.
        clock: Unix seconds.
    """

    def __init__(
        self,
        make: Callable[[Source], Asker] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._threads = ThreadPoolExecutor(len(QUERIES), "disagfusion-prometheus")
        self._make = make or self._over_http
        self._clock = clock
        self._sources: dict[Key, tuple[Source, str]] = {}
        self._answers: dict[Key, Answers] = {}
        self._tasks: dict[Source, asyncio.Task[None]] = {}

    def watch(self, key: Key, source: Source, name: str) -> None:
        """Ask about a pipeline from now on.

        Args:
            key: Which one.
            source: Where.
            name: Value of the label `pipeline` of its metrics.
        """
        before = self._sources.get(key)
        if before != (source, name):
            answers = self._answers.get(key)
            self.forget(key)
            self._sources[key] = source, name
            if answers is not None and before is not None:
                # Another token or window is no reason to know nothing for a while.
                if (before[0].url, before[1]) == (source.url, name):
                    self._answers[key] = answers
        if source not in self._tasks or self._tasks[source].done():
            self._tasks[source] = asyncio.create_task(self._ask_on(source), name="load")

    def forget(self, key: Key) -> None:
        """Ask no longer about a pipeline."""
        asked = self._sources.pop(key, None)
        self._answers.pop(key, None)
        if asked is None:
            return
        source, _ = asked
        if all(source != other for other, _ in self._sources.values()):
            self._tasks.pop(source).cancel()

    def last(self, key: Key) -> Answers | None:
        """Return the last answers about a pipeline; None: there are none yet."""
        return self._answers.get(key)

    async def aclose(self) -> None:
        """Ask nothing any more."""
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _ask_on(self, source: Source) -> None:
        asker = self._make(source)
        begin = time.monotonic()
        number = 0
        while True:
            await self._ask_once(source, asker)
            number = max(number + 1, int((time.monotonic() - begin) / source.period) + 1)
            await asyncio.sleep(begin + number * source.period - time.monotonic())

    async def _ask_once(self, source: Source, asker: Asker) -> None:
        names = {
            key: (key.namespace, name)
            for key, (asked, name) in sorted(self._sources.items())
            if asked == source
        }
        at = self._clock()
        found = await asyncio.to_thread(asker.ask, list(names.values()), source.scope)
        for key, name in names.items():
            if self._sources.get(key) == (source, name[1]):
                self._answers[key] = Answers(at, found[name])

    def _over_http(self, source: Source) -> Asker:
        authorization = None
        if source.token:
            authorization = Authorization(credentials=SecretStr(source.token))
        try:
            settings = PrometheusSettings(url=source.url, authorization=authorization)
        except ValidationError as error:
            return _Refused(f"{source.url}: {error.errors()[0]['msg']}")
        return SharedQuestions(PrometheusClient(settings), self._threads, NAMESPACE_LABEL)


class _Refused:
    """Stands for a source that cannot be asked at all."""

    def __init__(self, why: str) -> None:
        self._why = why

    def ask(
        self, pipelines: Sequence[tuple[str, str]], scope: Scope
    ) -> Mapping[tuple[str, str], Mapping[str, Outcome]]:
        return dict.fromkeys(pipelines, unasked(self._why))


def unasked(why: str) -> dict[str, Outcome]:
    """Return the outcomes of questions that nobody could be asked."""
    return {query.name: Missing(why) for query in QUERIES}
