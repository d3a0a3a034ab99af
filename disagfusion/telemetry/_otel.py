"""The only module that imports OpenTelemetry; imported when an endpoint is set."""

from __future__ import annotations

from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator

from disagfusion.telemetry.tracing import Attribute, TraceContext

_NANO = 1_000_000_000


class _GivenIds(IdGenerator):
    """Gives a span the identity that its traceparent already told to others."""

    def __init__(self) -> None:
        self._random = RandomIdGenerator()
        self.given: TraceContext | None = None

    def generate_span_id(self) -> int:
        return int(self.given.span_id, 16) if self.given else self._random.generate_span_id()

    def generate_trace_id(self) -> int:
        return int(self.given.trace_id, 16) if self.given else self._random.generate_trace_id()


class Exporter:
    """Records finished spans and sends them in batches over OTLP/HTTP.

    Not safe to use from several threads at once; each of our processes records in its event loop.
    """

    def __init__(self, service: str, version: str, endpoint: str) -> None:
        self._ids = _GivenIds()
        resource = Resource.create({"service.name": service, "service.version": version})
        self._provider = TracerProvider(id_generator=self._ids, resource=resource)
        url = f"{endpoint.rstrip('/')}/v1/traces"
        self._provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=url)))
        self._tracer = self._provider.get_tracer("disagfusion", version)

    def record(
        self,
        name: str,
        identity: TraceContext | None,
        parent: TraceContext | None,
        start: float,
        end: float,
        attributes: Mapping[str, Attribute],
        error: str,
    ) -> None:
        """Record one span; `identity` gives it ids, `parent` its place."""
        self._ids.given = identity
        try:
            span = self._tracer.start_span(
                name, _context(parent), attributes=attributes, start_time=int(start * _NANO)
            )
        finally:
            self._ids.given = None
        if error:
            span.set_status(trace.StatusCode.ERROR, error)
        span.end(int(end * _NANO))

    def close(self) -> None:
        """Export what is left."""
        self._provider.shutdown()


def _context(parent: TraceContext | None) -> Context:
    if parent is None:
        return Context()
    span = trace.SpanContext(
        int(parent.trace_id, 16),
        int(parent.span_id, 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(1 if parent.sampled else 0),
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(span), Context())
