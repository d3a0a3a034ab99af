"""Prometheus behind the balancer's port."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

from disagfusion.scheduling.observation import Fresh, Missing, Replicas
from disagfusion.scheduling.prometheus.queries import QUERIES, Scope
from disagfusion.scheduling.shapes import WeightedShape
from disagfusion.signals.prometheus import PrometheusSignals
from disagfusion.signals.settings import PrometheusSettings
from disagfusion.signals.source import PrometheusSource

from .conftest import Server

SCOPE = Scope("p", stale=10.0)
FLEET = {"encoder": {"a10": Replicas(1)}, "dit": {"a10": Replicas(2, starting=1)}}
LIGHT = WeightedShape(height=64, weight=1.0)
HEAVY = WeightedShape(height=512, weight=1.0)

Values = Mapping[tuple[str, ...], float]


def system(server: Server, **values: Values) -> None:
    """Let the server know these values, and nothing else."""
    known = {query.request(SCOPE): query for query in QUERIES}

    def reply(request: BaseHTTPRequestHandler) -> None:
        query = known[parse_qs(urlsplit(request.path).query)["query"][0]]
        now = time.time()
        result = [
            {
                "metric": {**dict(zip(query.by, key, strict=True)), "part": part},
                "value": [now, told],
            }
            for key, value in values.get(query.name, {}).items()
            for part, told in {"value": repr(value), "last": repr(value), "at": repr(now)}.items()
        ]
        data = {"resultType": "vector", "result": result}
        body = json.dumps({"status": "success", "data": data}).encode()
        request.send_response(200)
        request.end_headers()
        request.wfile.write(body)

    server.reply = reply


def counts(stage: str, waiting: float, running: float) -> Values:
    return {
        (stage, "waiting"): waiting,
        (stage, "transferring"): 0.0,
        (stage, "running"): running,
    }


def source(signals: PrometheusSignals) -> PrometheusSource:
    return PrometheusSource(signals, replicas=lambda: FLEET, accelerators=lambda: {"a10": 4})


async def test_what_a_balancer_is_told(server: Server) -> None:
    ready = {
        (stage, "a10", state): float(count)
        for stage, numbers in {"encoder": (1, 0, 0, 0), "dit": (2, 0, 0, 0)}.items()
        for state, count in zip(
            ("ready", "loading", "draining", "quarantined"), numbers, strict=True
        )
    }
    system(
        server,
        replicas=ready,
        queued={(): 2.0},
        jobs={**counts("encoder", 1.0, 1.0), **counts("dit", 4.0, 2.0)},
        arrivals={(): 0.5},
        completed={("dit",): 0.25, ("encoder",): 0.5},
        reporting={("dit",): 2.0, ("encoder",): 1.0},
    )
    with PrometheusSignals(
        PrometheusSettings(url=server.url), SCOPE, stages=("encoder", "dit"), mix=(LIGHT, HEAVY)
    ) as signals:
        first = await source(signals).observe(100.0)
        second = await source(signals).observe(110.0)
    assert first.replicas == second.replicas == FLEET
    assert second.accelerators == {"a10": 4}
    assert isinstance(second.jobs, Fresh)
    found = {(g.stage, g.pool, g.shape.height): g.count for g in second.jobs.value}
    assert found == {
        (0, "", 64): 2, (0, "", 512): 1, (0, "a10", 64): 1,
        (1, "", 64): 2, (1, "", 512): 2, (1, "a10", 64): 1, (1, "a10", 512): 1,
    }  # fmt: skip
    assert isinstance(first.arrived, Fresh)
    assert first.arrived.value == {}, "nothing is known of the time before"
    assert isinstance(second.arrived, Fresh)
    assert second.arrived.value == {LIGHT: 3, HEAVY: 2}
    dit, encoder = second.loads["dit"], second.loads["encoder"]
    # 2.5 jobs in ten seconds: the half is kept for the next time.
    assert isinstance(dit.completed, Fresh)
    assert isinstance(encoder.completed, Fresh)
    assert (dit.completed.value, encoder.completed.value) == (2, 5)
    assert isinstance(dit.busy, Missing)
    assert isinstance(dit.seconds, Missing)


async def test_an_outage_is_told_and_does_not_fail(server: Server) -> None:
    server.say(b"", 503)
    with PrometheusSignals(
        PrometheusSettings(url=server.url), SCOPE, stages=("encoder", "dit")
    ) as signals:
        seen = await source(signals).observe(100.0)
    assert seen.replicas == FLEET
    assert isinstance(seen.jobs, Missing)
    assert isinstance(seen.arrived, Missing)
    for load in seen.loads.values():
        assert isinstance(load.waiting, Missing)
        assert isinstance(load.completed, Missing)
        assert load.reporting == 0
