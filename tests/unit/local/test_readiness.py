import json
from pathlib import Path

import pytest

from disagfusion.local import readiness
from disagfusion.telemetry import metrics


def test_ready_workers_are_read_from_what_a_gateway_exports() -> None:
    registry = metrics.new_registry("gateway")
    gateway = metrics.GatewayMetrics(registry, pipeline='with "quotes", {braces}')
    gateway.workers("encoder", "default", "ready").set(1)
    gateway.workers("dit", "default", "ready").set(2)
    gateway.workers("dit", "other", "ready").set(1)
    gateway.workers("decoder", "default", "loading").set(1)
    server = metrics.serve("127.0.0.1:0", registry)
    try:
        ready = readiness.ready_workers(server.address)
    finally:
        server.close()
    assert ready == {"encoder": 1, "dit": 3}
    assert readiness.missing({"encoder": 1, "dit": 4, "decoder": 1}, ready) == ["dit", "decoder"]


def test_a_gateway_that_cannot_be_reached_has_no_workers() -> None:
    assert readiness.ready_workers("127.0.0.1:1") == {}


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([], ""),
        (["Traceback …", '"text"', "[1]", '{"event": "engine started"}'], ""),
        ([json.dumps({"event": "model not loaded", "problem": "a shard is missing"}), "x"],
         "a shard is missing"),
    ],
)  # fmt: skip
def test_why_a_model_was_not_loaded(tmp_path: Path, lines: list[str], problem: str) -> None:
    log = tmp_path / "dit-0.log"
    log.write_text("\n".join(lines))
    assert readiness.load_problem(log) == problem
    assert readiness.load_problem(tmp_path / "none.log") == ""
