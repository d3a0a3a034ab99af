"""The operator's balancer with a real Prometheus: two pipelines of one name in two namespaces."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from disagfusion_operator.api.status import Condition
from disagfusion_operator.scaling.controller import Scaling
from disagfusion_operator.scaling.load import Load, Source
from disagfusion_operator.scaling.report import Report
from disagfusion_operator.scaling.view import PipelineView

from disagfusion.scheduling.observation import Fresh
from disagfusion.scheduling.prometheus.readings import read
from disagfusion.telemetry import catalog

from ...unit.operator.scaling.members import Member, pool, profile
from ...unit.operator.scaling.world import Told, World, counts
from .conftest import Prometheus, Targets

pytestmark = pytest.mark.timeout(180)

STAGES = ("encoder", "dit", "decoder")


class Scraped(World):
    """A world whose jobs and pods are scraped."""

    def __init__(self) -> None:
        super().__init__()
        self.now = time.time()
        self.text = ""
        self._sums: dict[tuple[str, ...], float] = {}

    def move(self) -> None:
        """Let the time that has passed pass here, too."""
        self.tick(time.time() - self.now)
        self.text = "".join(self._lines())

    def _lines(self) -> Iterator[str]:
        for member in self.members.values():
            yield from self._pipeline(member)

    def _pipeline(self, member: Member) -> Iterator[str]:
        jobs, ready, capacity = member.jobs, self.ready(member), self.capacity(member)
        base = {"namespace": member.key.namespace, "pipeline": member.key.name}

        def line(name: str, value: float, **labels: str) -> str:
            told = ", ".join(f'{key}="{one}"' for key, one in {**base, **labels}.items())
            return f"{name}{{{told}}} {value!r}\n"

        yield line(catalog.GATEWAY_QUEUE.name, 0)
        yield line(catalog.JOBS_ACCEPTED.name, jobs.came)
        for stage in STAGES:
            there = {place: n for place, n in ready.items() if place.stage == stage}
            running = min(sum(there.values()), int(jobs.waiting[stage]))
            waiting = int(jobs.waiting[stage]) - running
            for status, count in (("waiting", waiting), ("running", running), ("transferring", 0)):
                yield line(catalog.STAGE_JOBS.name, count, stage=stage, status=status)
            for place in there:
                for state in ("ready", "loading", "draining", "quarantined"):
                    number = there[place] if state == "ready" else 0
                    labels = {"stage": stage, "pool": place.pool, "state": state}
                    yield line(catalog.WORKERS.name, number, **labels)
                busy = min(1.0, jobs.flows[stage] / capacity[stage])
                for state, share in (("busy", busy), ("starved", 1 - busy), ("blocked", 0.0)):
                    labels = {"stage": stage, "pool": place.pool, "state": state}
                    key = (str(member.key), *labels.values())
                    self._sums[key] = self._sums.get(key, 0.0) + 0.25 * share
                    yield line(catalog.ACCELERATOR_SECONDS.name, self._sums[key], **labels)


@pytest.fixture
def world() -> Iterator[tuple[Scraped, str]]:
    made = Scraped()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = made.text.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield made, f"127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def viewed(world: Scraped, member: Member, url: str) -> PipelineView:
    found = world.view(member)
    return PipelineView(
        **{
            name: getattr(found, name)
            for name in PipelineView.__dataclass_fields__
            if name != "prometheus_url"
        },
        prometheus_url=url,
    )


async def test_replicas_follow_what_prometheus_says(
    world: tuple[Scraped, str], prometheus_of: Callable[[Targets], Prometheus]
) -> None:
    scraped, address = world
    prometheus = prometheus_of([address])
    scraped.add_nodes("a", 2, 8)
    spec = {
        "pools": {"a": pool("a")},
        "scaling": {
            "profile": profile("a", encoder=0.5, dit=3.0, decoder=0.5),
            "periodSeconds": 1,
            "prometheus": {"windowSeconds": 6},
        },
    }
    scraped.start_seconds, scraped.drain_seconds = 1.0, 1.0
    busy = scraped.add("flux", spec, lambda now: 1.2, namespace="one")
    idle = scraped.add("flux", spec, lambda now: 0.0, namespace="two")
    reports: dict[str, Report] = {}
    load = Load()
    async with Scaling(scraped, load=load, gateways=Told(scraped)) as scaling:

        async def until(holds: Callable[[], object]) -> None:
            async with asyncio.timeout(60):
                while not holds():
                    scraped.move()
                    for member in (busy, idle):
                        view = viewed(scraped, member, prometheus.url)
                        report = await scaling.step(view, scraped.cluster_view(), time.time())
                        reports[member.key.namespace] = report
                    await asyncio.sleep(0.25)

        def available(namespace: str) -> bool | None:
            found = reports.get(namespace)
            kind = Condition.METRICS_AVAILABLE
            return found and next((one.holds for one in found.findings if one.type is kind), None)

        await until(lambda: available("one") is False)
        prometheus.start()
        await until(lambda: available("one") and available("two"))
        await until(lambda: counts(busy, scraped)["dit"] >= 3)
        assert counts(idle, scraped) == {"encoder": 1, "dit": 1, "decoder": 1}
        source = Source(prometheus.url, window=6.0, period=1.0)

        def arrivals(member: Member) -> float:
            answers = load.last(member.key)
            assert answers is not None
            found = read(answers.outcomes, STAGES, source.scope, 0.0).arrivals
            return found.value if isinstance(found, Fresh) else -1.0

        await until(lambda: 0.6 < arrivals(busy) < 2.4)
        await until(lambda: arrivals(idle) == 0.0)
        prometheus.stop()
        await until(lambda: available("one") is False)
        prometheus.start()
        await until(lambda: available("one") and available("two"))
