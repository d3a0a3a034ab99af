"""A real Prometheus scrapes a small emulated system; then it goes, comes back, and is replaced."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from disagfusion.client import Client
from disagfusion.local import LocalRuntime
from disagfusion.scheduling.observation import Fresh, Invalid, Missing, Replicas, Signal, Stale
from disagfusion.scheduling.prometheus.queries import QUERIES, Scope
from disagfusion.scheduling.prometheus.readings import Readings
from disagfusion.signals.prometheus import PrometheusSignals
from disagfusion.signals.settings import PrometheusSettings

from .conftest import (
    BALANCER_PANELS,
    OPERATOR_PANELS,
    PATIENCE,
    Prometheus,
    Targets,
    until,
    without_data,
)

pytestmark = pytest.mark.timeout(300)

PROFILE = Path(__file__).parents[1] / "emulation" / "profile.yaml"
STAGES = ("encoder", "dit", "decoder")
PIPELINE = "emulated-signals"
# What a system without a balancer, without failures and without a prompt cache does not have.
EMPTY_PANELS = {"Failures and repetitions", "Prompt cache", "Exposed share of transfers"}
# Long enough that a busy machine's scrape is not old, short enough that the test is not slow.
SCOPE = Scope(PIPELINE, window=30.0, stale=10.0)


@pytest.fixture(scope="module")
def runtime() -> Iterator[LocalRuntime]:
    with LocalRuntime(
        profile=PROFILE,
        device=dict.fromkeys(STAGES, "emulated:quick"),
        dits=2,
        time_scale=0.01,
        transport="tcp",
        pipeline=PIPELINE,
        settings={"metrics_listen": "127.0.0.1:0"},
    ) as running:
        yield running


def every(readings: Readings) -> list[Signal[Any]]:
    """All signals but those that need jobs."""
    found: list[Signal[Any]] = [readings.queued, readings.arrivals]
    for stage in STAGES:
        found += readings.replicas[stage].values()
        found += readings.shares[stage].values()
        found += readings.backlog[stage].values()
        found += [
            readings.waiting[stage],
            readings.inside[stage],
            readings.completed[stage],
            readings.reporting[stage],
        ]
    return found


def fresh(readings: Readings, replicas: int = 2) -> bool:
    return all(isinstance(one, Fresh) for one in every(readings)) and [
        r.value for r in readings.reporting.values() if isinstance(r, Fresh)
    ] == [1, replicas, 1]


def have_arrived(found: Readings) -> bool:
    """Tell whether jobs have arrived, and every stage has said how long its own took."""
    arrivals = found.arrivals
    arrived = isinstance(arrivals, Fresh) and arrivals.value > 0.0
    return arrived and all(isinstance(one, Fresh) for one in found.seconds.values())


def test_signals_of_a_real_system(
    runtime: LocalRuntime, prometheus_of: Callable[[Targets], Prometheus]
) -> None:
    addresses = [entry.metrics_address for entry in runtime.status() if entry.metrics_address]
    assert len(addresses) == 5
    prometheus = prometheus_of(addresses)
    settings = PrometheusSettings(url=prometheus.url, timeout_seconds=5.0)
    with (
        PrometheusSignals(settings, SCOPE, stages=STAGES) as signals,
        Client(runtime.address, timeout=60.0) as client,
    ):
        last = signals.read(1.0)
        assert all(isinstance(one, Missing) for one in every(last)), "nobody is there yet"

        def read() -> Readings:
            nonlocal last
            last = signals.read(time.monotonic())
            return last

        prometheus.start()
        until(lambda: fresh(read()), lambda: last)
        assert last.replicas["dit"] == {"quick": last.replicas["dit"]["quick"]}
        dit = last.replicas["dit"]["quick"]
        assert isinstance(dit, Fresh)
        assert dit.value == Replicas(ready=2)
        assert all(isinstance(one, Missing) for one in last.seconds.values()), "no job has run"
        assert last.jobs(STAGES, signals.mix) == Fresh((), min_time(last))
        for stage in STAGES:
            left = last.backlog[stage]["quick"]
            assert isinstance(left, Fresh)
            assert left.value == 0.0, "no work, and known to be none"

        signals.observe(time.monotonic(), {"quick": 3})
        for handle in [client.submit("p", num_inference_steps=1) for _ in range(6)]:
            handle.result()
        # Each process is scraped at a time of its own.
        until(lambda: have_arrived(read()), lambda: last)
        for stage in STAGES:
            seconds = last.seconds[stage]
            assert isinstance(seconds, Fresh)
            assert seconds.value >= 0.01, stage
        observation = signals.observe(time.monotonic(), {"quick": 3})
        assert isinstance(observation.jobs, Fresh)
        assert isinstance(observation.arrived, Fresh)
        assert observation.loads["dit"].reporting == 2
        assert observation.replicas["dit"]["quick"].ready == 2

        def empty() -> set[str]:
            elsewhere = EMPTY_PANELS | BALANCER_PANELS | OPERATOR_PANELS
            return without_data(prometheus.url, PIPELINE) - elsewhere

        until(lambda: not empty(), empty)

        prometheus.stop()
        for one in every(read()):
            assert isinstance(one, Missing), "an outage is not zero"
        blind = signals.observe(time.monotonic(), {"quick": 3})
        assert isinstance(blind.jobs, Missing)
        assert blind.replicas == observation.replicas, "the last known ones"

        check_lies(prometheus)

        prometheus.start()
        until(lambda: fresh(read()), lambda: last)


def min_time(readings: Readings) -> float:
    counts = [*readings.waiting.values(), *readings.inside.values()]
    return min(one.at for one in counts if isinstance(one, Fresh))


LABELS = {
    "stage": STAGES,
    "state": ("ready", "loading", "draining", "quarantined", "busy", "starved", "blocked"),
    "status": ("waiting", "transferring", "running"),
    "pool": ("quick",),
}


def number_for_all(asked: str, number: str, age: float) -> bytes:
    """Return what a Prometheus says that has one number for everything."""
    (query,) = [one for one in QUERIES if one.request(SCOPE) == asked]
    now = time.time()
    metrics: list[dict[str, str]] = [{}]
    for name in query.by:
        metrics = [metric | {name: value} for metric in metrics for value in LABELS[name]]
    parts = {"value": number, "last": number, "at": repr(now - age)}
    result = [
        {"metric": dict(metric, part=part), "value": [now, value]}
        for metric in metrics
        for part, value in parts.items()
    ]
    data = {"resultType": "vector", "result": result}
    return json.dumps({"status": "success", "data": data}).encode()


Lie = Callable[[str], tuple[int, bytes]]


@contextlib.contextmanager
def liar(port: int, lie: Lie) -> Iterator[None]:
    """A server in the place of Prometheus."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)["query"][0]
            status, body = lie(asked)
            try:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
            except OSError:
                self.close_connection = True  # whoever asked has gone

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def check_lies(prometheus: Prometheus) -> None:
    """Ask servers in the place of Prometheus; the last one tells the truth."""
    asked = threading.Event()

    def slow(query: str) -> tuple[int, bytes]:
        asked.wait(PATIENCE)
        return 200, number_for_all(query, "0", 0.0)

    empty = b'{"status":"success","data":{"resultType":"vector","result":[]}}'
    error = b'{"status":"error","errorType":"timeout","error":"query timed out"}'
    lies: dict[str, tuple[Lie, tuple[type, ...]]] = {
        "NaN": (lambda query: (200, number_for_all(query, "NaN", 0.0)), (Invalid, Missing)),
        "infinite": (lambda query: (200, number_for_all(query, "+Inf", 0.0)), (Invalid, Missing)),
        "negative": (lambda query: (200, number_for_all(query, "-1", 0.0)), (Invalid, Missing)),
        "old": (lambda query: (200, number_for_all(query, "0", 3600.0)), (Stale, Missing)),
        "empty": (lambda query: (200, empty), (Missing,)),
        "error": (lambda query: (200, error), (Missing,)),
        "status": (lambda query: (503, number_for_all(query, "0", 0.0)), (Missing,)),
        "garbage": (lambda query: (200, b"<html>0</html>"), (Invalid, Missing)),
        "slow": (slow, (Missing,)),
        "true": (lambda query: (200, number_for_all(query, "0", 0.0)), (Fresh,)),
    }
    for name, (lie, kinds) in lies.items():
        patience = 0.5 if name == "slow" else 5.0
        settings = PrometheusSettings(url=prometheus.url, timeout_seconds=patience)
        with (
            PrometheusSignals(settings, SCOPE, stages=STAGES) as signals,
            liar(prometheus.port, lie),
        ):
            found = every(signals.read(1.0))
            if name == "slow":
                asked.set()
        assert all(isinstance(one, kinds) for one in found), (name, found)
        assert any(isinstance(one, kinds[0]) for one in found), (name, found)
