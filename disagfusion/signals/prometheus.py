"""A balancer's signals from a Prometheus, or from what speaks its HTTP API."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self
from urllib.parse import urlencode, urlsplit

from disagfusion.errors import UnavailableError
from disagfusion.scheduling.observation import (
    Fresh,
    Invalid,
    Missing,
    Observation,
    Predictor,
    Replicas,
    Signal,
)
from disagfusion.scheduling.prometheus.answers import Answer, Outcome, parse
from disagfusion.scheduling.prometheus.queries import QUERIES, Query, Scope
from disagfusion.scheduling.prometheus.readings import (
    Readings,
    Tally,
    apply,
    read,
    refused,
    split,
)
from disagfusion.scheduling.shapes import Shape, WeightedShape
from disagfusion.signals.settings import PrometheusSettings

_READ_BYTES = 1 << 16


class PrometheusClient:
    """Asks queries; every way in which an answer may fail to come is an outcome, not an exception.

    Redirects are not followed: they would take the credentials elsewhere.

    Args:
        settings: Where it is.
        clock: Unix seconds.

    Raises:
        InvalidArgumentError: A file of `tls_config` is missing or damaged.
    """

    def __init__(
        self, settings: PrometheusSettings, clock: Callable[[], float] = time.time
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._tls = settings.tls()
        parts = urlsplit(settings.url)
        self._host, self._port, self._path = parts.hostname or "", parts.port, parts.path

    def ask(self, query: Query, scope: Scope) -> Outcome:
        """Ask one query, for at most twice `timeout_seconds`.

        Args:
            query: What.
            scope: Of which pipeline.
        """
        try:
            status, body = self._get(f"/api/v1/query?{urlencode({'query': query.request(scope)})}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            return Missing(f"{self._settings.url}: {str(error) or type(error).__name__}")
        outcome = parse(query, status, body)
        if isinstance(outcome, Answer) and outcome.at:
            off = abs(self._clock() - outcome.at)
            if off > scope.stale + self._settings.timeout_seconds:
                return Missing(f"the answer is of another time, by {off:.0f} s: clock or cache")
        return outcome

    def _get(self, target: str) -> tuple[int, bytes]:
        settings = self._settings
        headers = {"Connection": "close", **settings.headers()}
        deadline = time.monotonic() + settings.timeout_seconds
        connection: http.client.HTTPConnection
        if self._tls is None:
            connection = http.client.HTTPConnection(
                self._host, self._port, timeout=settings.timeout_seconds
            )
        else:
            connection = http.client.HTTPSConnection(
                self._host, self._port, timeout=settings.timeout_seconds, context=self._tls
            )
        try:
            connection.connect()
            with _cut_off(connection.sock, deadline - time.monotonic()):
                connection.request("GET", self._path + target, headers=headers)
                response = connection.getresponse()
                body, declared = bytearray(), response.length
                while piece := response.read1(_READ_BYTES):
                    body += piece
                    if len(body) > settings.max_answer_bytes:
                        raise ValueError(
                            f"the answer is longer than {settings.max_answer_bytes} bytes"
                        )
        except (OSError, http.client.HTTPException, ValueError) as error:
            if time.monotonic() < deadline:
                raise
            raise TimeoutError(f"no answer in {settings.timeout_seconds:g} s") from error
        finally:
            connection.close()
        if time.monotonic() >= deadline:
            raise TimeoutError(f"no whole answer in {settings.timeout_seconds:g} s")
        if declared is not None and len(body) < declared:
            raise ValueError(f"{len(body)} bytes came of the {declared} announced")
        return response.status, bytes(body)


@contextlib.contextmanager
def _cut_off(connection: socket.socket, seconds: float) -> Iterator[None]:
    """End a connection after some time: a time-out of its own is one of each read."""

    def cut() -> None:
        with contextlib.suppress(OSError):
            # Not an SSLSocket's own method, which is not made for a second thread.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, seconds), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


class Observer:
    """Makes a balancer's observations of one pipeline's readings.

    What metrics cannot tell has to be given: the shapes of the jobs are taken from an expected
    mix, and how many accelerators there are is the actuator's to know.

    Args:
        stages: In the pipeline's order.
        mix: Expected shapes and their weights.

    Attributes:
        mix: Expected shapes and their weights.
    """

    def __init__(
        self, stages: Sequence[str], mix: Sequence[WeightedShape] = (WeightedShape(),)
    ) -> None:
        self._stages = tuple(stages)
        self.mix = tuple(mix)
        self._tally = Tally()
        self._seen_at: float | None = None
        self._replicas: dict[str, dict[str, Replicas]] = {}

    def observe(
        self,
        readings: Readings,
        now: float,
        accelerators: Mapping[str, int],
        *,
        replicas: Mapping[str, Mapping[str, Replicas]] | None = None,
        predictor: Predictor | None = None,
    ) -> Observation:
        """Return what a balancer is told.

        Where replicas are not known, the last known ones stand there and the jobs are missing, so
        that nothing changes.

        Args:
            readings: Of now.
            now: Seconds, never fewer than at the last call.
            accelerators: Pool → accelerators that can be used.
            replicas: From whoever starts them, who knows of those that no gateway has seen yet;
                instead of the gateways' view.
            predictor: What is known of how long stages take.

        Raises:
            UnavailableError: Replicas have never been known.
        """
        since = 0.0 if self._seen_at is None else max(0.0, now - self._seen_at)
        self._seen_at = now
        jobs = readings.jobs(self._stages, self.mix)
        if replicas is None:
            unknown = self._learn(readings)
            replicas = {stage: dict(pools) for stage, pools in self._replicas.items()}
            if unknown is not None:
                jobs = unknown
        return Observation(
            replicas=replicas,
            jobs=jobs,
            arrived=self._arrived(readings.arrivals, since),
            loads={
                stage: readings.load(
                    stage, self._tally.add(stage, readings.completed[stage], since)
                )
                for stage in self._stages
            },
            accelerators=accelerators,
            predictor=predictor,
        )

    def _learn(self, readings: Readings) -> Missing | Invalid | None:
        """Take over the replicas that are known; return why some are not."""
        problem: Missing | Invalid | None = None
        for stage in self._stages:
            for pool, found in readings.replicas[stage].items():
                if isinstance(found, Fresh):
                    self._replicas.setdefault(stage, {})[pool] = found.value
                else:
                    problem = problem or refused(found, f"replicas of {stage}")
            if stage not in self._replicas:
                why = problem.why if problem else stage
                raise UnavailableError(
                    f"the replicas of {stage} have never been known: {why}",
                    reason="SIGNALS_MISSING",
                )
        return problem

    def _arrived(self, rate: Signal[float], since: float) -> Signal[Mapping[Shape, int]]:
        count = self._tally.add("arrived", rate, since)
        return apply(count, lambda number: dict(split(number, self.mix)))


class PrometheusSignals:
    """Observes a pipeline through Prometheus.

    Args:
        settings: Where Prometheus is.
        scope: Which pipeline, and when its figures are too old.
        stages: In the pipeline's order.
        mix: Expected shapes and their weights.
        clock: Unix seconds.

    Raises:
        InvalidArgumentError: A file of `tls_config` is missing or damaged.
    """

    def __init__(
        self,
        settings: PrometheusSettings,
        scope: Scope,
        *,
        stages: Sequence[str],
        mix: Sequence[WeightedShape] = (WeightedShape(),),
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._client = PrometheusClient(settings, clock)
        self._scope = scope
        self._stages = tuple(stages)
        self._observer = Observer(stages, mix)
        self._threads = ThreadPoolExecutor(len(QUERIES), "disagfusion-prometheus")

    @property
    def mix(self) -> tuple[WeightedShape, ...]:
        """Expected shapes and their weights."""
        return self._observer.mix

    @mix.setter
    def mix(self, mix: Sequence[WeightedShape]) -> None:
        self._observer.mix = tuple(mix)

    def close(self) -> None:
        """Wait for the questions that are under way and end the threads."""
        self._threads.shutdown()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    def read(self, now: float) -> Readings:
        """Ask everything and return each answer as a signal.

        Args:
            now: On the clock that the signals' times are to be of.
        """
        asked = self._threads.map(lambda query: self._client.ask(query, self._scope), QUERIES)
        outcomes = {query.name: found for query, found in zip(QUERIES, asked, strict=True)}
        return read(outcomes, self._stages, self._scope, now)

    def observe(
        self,
        now: float,
        accelerators: Mapping[str, int],
        *,
        replicas: Mapping[str, Mapping[str, Replicas]] | None = None,
        predictor: Predictor | None = None,
    ) -> Observation:
        """Return what a balancer is told; see `Observer.observe`.

        Raises:
            UnavailableError: Replicas have never been known.
        """
        return self._observer.observe(
            self.read(now), now, accelerators, replicas=replicas, predictor=predictor
        )
