"""A balancer that sees by Prometheus: without it, and when it lies, replicas stay as they are."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from disagfusion.client import Client
from disagfusion.local import Balance, LocalRuntime

from .conftest import BALANCER_PANELS, Prometheus, Targets, until, without_data

pytestmark = pytest.mark.timeout(240)

PROFILE = Path(__file__).parents[1] / "balancing" / "profile.yaml"
PIPELINE = "emulated-unseen"
SCALE = 0.02
# A decoder takes 40 s, a DiT 2 s of the profile's; and here a DiT 60 s, a decoder 0.4 s.
HEAVY: dict[str, Any] = {"height": 1000, "width": 1000}
LONG: dict[str, Any] = {"height": 100, "width": 100, "num_inference_steps": 30}
BLIND = {"METRICS_MISSING", "METRICS_STALE", "METRICS_INVALID"}
LIES = {
    "errors": {"METRICS_MISSING"},
    "NaN": {"METRICS_INVALID"},
    "empty": {"METRICS_MISSING"},
    # Jobs that run, and replicas that nobody has seen of late.
    "old": {"METRICS_STALE", "METRICS_MISSING"},
}


class Proxy:
    """Stands between the balancer and Prometheus, and tells the truth or what it is told to."""

    def __init__(self) -> None:
        self.told = "truth"
        self.behind = 0
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                # Whoever asked may have gone, or nobody be there to be asked.
                with contextlib.suppress(OSError, http.client.HTTPException):
                    status, body = proxy.answer(self.path)
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))

    def answer(self, path: str) -> tuple[int, bytes]:
        told = self.told
        if told == "errors":
            return 503, b'{"status":"error","errorType":"unavailable","error":"overloaded"}'
        connection = http.client.HTTPConnection("127.0.0.1", self.behind, timeout=5)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read()
        finally:
            connection.close()
        return response.status, body if told == "truth" else lie(told, body)

    def __enter__(self) -> Proxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def lie(told: str, body: bytes) -> bytes:
    """Return what Prometheus said, made wrong."""
    answer = json.loads(body)
    samples = answer["data"]["result"]
    if told == "empty":
        samples = []
    elif told == "NaN":
        for one in samples:
            if one["metric"]["part"] != "at":
                one["value"][1] = "NaN"
    else:
        samples = [one for one in samples if one["metric"]["part"] != "value"]
        for one in samples:
            if one["metric"]["part"] == "at":
                one["value"][1] = str(float(one["value"][1]) - 3600.0)
    answer["data"]["result"] = samples
    return json.dumps(answer).encode()


class System:
    def __init__(self, runtime: LocalRuntime, log: Path) -> None:
        self.runtime, self._log = runtime, log

    def decisions(self) -> list[dict[str, Any]]:
        lines = self._log.read_text().split("\n")[:-1] if self._log.exists() else []
        return [json.loads(line) for line in lines]

    def roles(self) -> dict[str, str]:
        stages = ("encoder", "dit", "decoder")
        return {one.name: one.role for one in self.runtime.status() if one.role in stages}

    def process(self, name: str) -> Any:
        return next(one for one in self.runtime.status() if one.name == name)

    def becomes(self, **replicas: int) -> None:
        until(lambda: Counter(self.roles().values()) == replicas, lambda: self.decisions()[-5:])

    def stays_as_it_is(self, reasons: set[str]) -> None:
        """See it decide blindly, several times; nothing changes from the first time on."""
        begin = len(self.decisions())
        roles = self.roles()
        until(
            lambda: any(one["reason"] in reasons for one in self.decisions()[begin:]),
            lambda: self.decisions()[begin:],
        )
        begin = len(self.decisions())
        until(lambda: len(self.decisions()) >= begin + 3, self.decisions)
        seen = self.decisions()[begin:]
        assert {one["reason"] for one in seen} <= reasons
        assert not any(one["moves"] for one in seen)
        assert self.roles() == roles


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy() as running:
        yield running


@pytest.fixture
def system(tmp_path: Path, proxy: Proxy) -> Iterator[System]:
    data = tmp_path / "served"
    with LocalRuntime(
        profile=PROFILE,
        device="emulated:quick",
        dits=2,
        time_scale=SCALE,
        pipeline=PIPELINE,
        transport="tcp",
        data_dir=data,
        balance=Balance(
            settings={"forecast_horizon": 0.0, "period": 15.0},
            signals=f"prometheus:{proxy.url}",
            signals_window=8.0,
        ),
    ) as runtime:
        yield System(runtime, data / "decisions.jsonl")


def test_the_ratio_holds_while_nobody_can_see_and_follows_the_work_again(
    tmp_path: Path,
    proxy: Proxy,
    system: System,
    prometheus_of: Callable[[Targets], Prometheus],
) -> None:
    prometheus = prometheus_of(tmp_path / "served" / "targets.json")
    proxy.behind = prometheus.port
    with Client(system.runtime.address, timeout=60.0) as client:
        # The decoder has a minute of work, and a DiT would help it, were it known.
        heavy = [client.submit("p", seed=seed, **HEAVY) for seed in range(90)]
        system.stays_as_it_is({"METRICS_MISSING"})  # there is no Prometheus yet
        proxy.told = "errors"
        prometheus.start()
        for told, reasons in LIES.items():
            proxy.told = told
            if told != "errors":
                until(lambda: scraped(prometheus), lambda: "never scraped")
            system.stays_as_it_is(reasons)
        # A replica that dies meanwhile comes back as what it was.
        died = system.process("encoder-0").pid
        os.kill(died, signal.SIGKILL)
        until(
            lambda: (one := system.process("encoder-0")).state == "ready" and one.pid != died,
            system.runtime.status,
        )
        assert system.process("encoder-0").role == "encoder"
        assert {one["reason"] for one in system.decisions()} <= BLIND
        assert Counter(system.roles().values()) == {"encoder": 1, "dit": 2, "decoder": 1}

        proxy.told = "truth"
        system.becomes(encoder=1, dit=1, decoder=2)
        until(lambda: all(one.state == "ready" for one in system.runtime.status()), str)

        def empty() -> set[str]:
            return without_data(prometheus.url, PIPELINE) & BALANCER_PANELS - {"Model error"}

        until(lambda: not empty(), empty)

        prometheus.stop()
        for handle in heavy:
            handle.cancel()
        long = [client.submit("p", seed=seed, **LONG) for seed in range(40)]
        system.stays_as_it_is(BLIND)
        prometheus.start()
        system.becomes(encoder=1, dit=2, decoder=1)
        moves = [move for one in system.decisions() for move in one["moves"]]
        assert [move["to"] for move in moves] == [["decoder", "quick"], ["dit", "quick"]]
        for handle in long:
            handle.cancel()


def scraped(prometheus: Prometheus) -> bool:
    """Whether Prometheus has what the balancer asks for first of all."""
    connection = http.client.HTTPConnection("127.0.0.1", prometheus.port, timeout=5)
    try:
        connection.request("GET", "/api/v1/query?query=disagfusion_stage_jobs")
        return bool(json.load(connection.getresponse())["data"]["result"])
    finally:
        connection.close()
