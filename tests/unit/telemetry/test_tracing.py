"""Traces: the traceparent's syntax, and what reaches a collector."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from disagfusion.telemetry import tracing

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture
def collector() -> Iterator[tuple[str, list[Span]]]:
    spans: list[Span] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    spans.extend(scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", spans
        finally:
            tracing.shutdown()
            server.shutdown()
            thread.join()


def test_a_job_and_its_stages_form_one_trace(collector: tuple[str, list[Span]]) -> None:
    endpoint, spans = collector
    assert tracing.configure("gateway", endpoint)
    assert tracing.enabled()
    job = tracing.new_traceparent(PARENT)
    tracing.record(
        "stage dit", traceparent=job, start=2.0, end=3.5, attributes={"stage": "dit", "attempt": 1}
    )
    tracing.record("stage decoder", traceparent=job, start=4.0, end=5.0, error="out of memory")
    tracing.record_job(traceparent=job, parent=PARENT, start=1.0, end=6.0)
    tracing.shutdown()
    assert not tracing.enabled()

    by_name = {span.name: span for span in spans}
    root = by_name["job"]
    assert len(spans) == 3
    assert root.trace_id.hex() == TRACE
    assert f"00-{TRACE}-{root.span_id.hex()}-01" == job
    assert root.parent_span_id.hex() == "b7ad6b7169203331"
    dit = by_name["stage dit"]
    assert dit.trace_id == root.trace_id
    assert dit.parent_span_id == root.span_id
    assert (dit.start_time_unix_nano, dit.end_time_unix_nano) == (2_000_000_000, 3_500_000_000)
    assert {a.key for a in dit.attributes} == {"stage", "attempt"}
    assert by_name["stage decoder"].status.code == Status.STATUS_CODE_ERROR
    assert by_name["stage decoder"].status.message == "out of memory"


def test_a_job_without_a_caller_is_a_root(collector: tuple[str, list[Span]]) -> None:
    endpoint, spans = collector
    tracing.configure("gateway", endpoint)
    job = tracing.new_traceparent()
    tracing.record_job(traceparent=job, start=1.0, end=2.0)
    tracing.shutdown()
    assert [span.parent_span_id for span in spans] == [b""]
    assert f"00-{spans[0].trace_id.hex()}-{spans[0].span_id.hex()}-01" == job


def test_an_unsampled_trace_is_not_exported(collector: tuple[str, list[Span]]) -> None:
    endpoint, spans = collector
    tracing.configure("gateway", endpoint)
    job = tracing.new_traceparent(PARENT.removesuffix("01") + "00")
    tracing.record("stage dit", traceparent=job, start=1.0, end=2.0)
    tracing.record_job(traceparent=job, parent=PARENT, start=1.0, end=2.0)
    tracing.shutdown()
    assert spans == []


def test_off_means_not_even_imported() -> None:
    program = (
        "import sys\n"
        "from disagfusion.telemetry import tracing\n"
        "assert not tracing.configure('dit')\n"
        "tracing.record('x', traceparent=tracing.new_traceparent(), start=0, end=1)\n"
        "tracing.shutdown()\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, env={})


@pytest.mark.parametrize(
    "header",
    [
        "",
        "garbage",
        f"00-{'0' * 32}-b7ad6b7169203331-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-b7ad6b7169203331-01",
        f"00-{TRACE}-b7ad6b7169203331-01-extra",
        f"00-{TRACE.upper()}-b7ad6b7169203331-01",
    ],
)
def test_an_invalid_traceparent_starts_a_new_trace(header: str) -> None:
    assert tracing.parse_traceparent(header) is None
    child = tracing.parse_traceparent(tracing.new_traceparent(header))
    assert child is not None
    assert child.trace_id != TRACE


def test_a_later_version_with_more_fields_is_read() -> None:
    context = tracing.parse_traceparent(f"01-{TRACE}-b7ad6b7169203331-01-more")
    assert context is not None
    assert context.trace_id == TRACE


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())
def test_a_traceparent_survives_the_round_trip(trace: int, span: int, sampled: bool) -> None:
    context = tracing.TraceContext(f"{trace:032x}", f"{span:016x}", sampled)
    assert tracing.parse_traceparent(str(context)) == context


@given(st.text())
def test_no_header_raises(header: str) -> None:
    tracing.parse_traceparent(header)
