"""OpenTelemetry traces: one per job, one span per stage and transfer.

Nothing here imports OpenTelemetry until `configure` is given an endpoint; without one `record`
costs a comparison. Spans are recorded after the fact from timestamps, because what they describe
crosses processes and outlives restarts. The job's own span is identified by the traceparent that
its messages carry; the spans of stages and transfers are its children.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from disagfusion.version import __version__

if TYPE_CHECKING:
    from disagfusion.telemetry._otel import Exporter

Attribute = str | int | float | bool

# https://www.w3.org/TR/trace-context/#traceparent-header
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")

_exporter: Exporter | None = None


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A parsed W3C traceparent.

    Attributes:
        trace_id: 32 hexadecimal digits.
        span_id: 16 hexadecimal digits.
        sampled: Whether the caller records this trace.
    """

    trace_id: str
    span_id: str
    sampled: bool = True

    def __str__(self) -> str:
        """Return the traceparent header."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


def parse_traceparent(header: str) -> TraceContext | None:
    """Return what a traceparent header says, or None where it is not valid."""
    match = _TRACEPARENT.fullmatch(header.strip())
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest) or not int(trace_id, 16):
        return None
    if not int(span_id, 16):
        return None
    return TraceContext(trace_id, span_id, bool(int(flags, 16) & 1))


def new_traceparent(parent: str = "") -> str:
    """Return the traceparent of a new span: a child of `parent` if that is valid, or a root."""
    context = parse_traceparent(parent)
    if context is None:
        return str(TraceContext(secrets.token_hex(16), secrets.token_hex(8)))
    return str(TraceContext(context.trace_id, secrets.token_hex(8), context.sampled))


def configure(component: str, endpoint: str | None = None) -> bool:
    """Export spans over OTLP/HTTP where an endpoint is set; return whether they are.

    Args:
        component: What runs, as the `service.name` "disagfusion-<component>".
        endpoint: Base URL of a collector, such as "http://collector:4318". Taken from
            OTEL_EXPORTER_OTLP_ENDPOINT when not given; empty means off.

    Raises:
        ModuleNotFoundError: An endpoint is set and OpenTelemetry is not installed.
    """
    global _exporter
    if endpoint is None:
        endpoint = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")
    if not endpoint:
        return False
    from disagfusion.telemetry._otel import Exporter

    shutdown()
    _exporter = Exporter(f"disagfusion-{component}", __version__, endpoint)
    return True


def enabled() -> bool:
    """Return whether spans are exported."""
    return _exporter is not None


def record(
    name: str,
    *,
    traceparent: str,
    start: float,
    end: float,
    attributes: Mapping[str, Attribute] | None = None,
    error: str = "",
) -> None:
    """Record a span of a stage or a transfer, a child of the job's span.

    Args:
        name: A constant such as "stage dit" or "transfer encoder-dit".
        traceparent: The job's.
        start: Seconds since the epoch.
        end: Seconds since the epoch.
        attributes: Details, such as the job id.
        error: What went wrong, where something did.
    """
    if _exporter is None:
        return
    context = parse_traceparent(traceparent)
    if context is not None:
        _exporter.record(name, None, context, start, end, attributes or {}, error)


def record_job(
    *,
    traceparent: str,
    parent: str = "",
    start: float,
    end: float,
    attributes: Mapping[str, Attribute] | None = None,
    error: str = "",
) -> None:
    """Record the span of a whole job, the one that `traceparent` names.

    Args:
        traceparent: The job's.
        parent: The caller's traceparent, from which the job's was made.
        start: Seconds since the epoch.
        end: Seconds since the epoch.
        attributes: Details, such as the job id.
        error: What went wrong, where something did.
    """
    if _exporter is None:
        return
    context = parse_traceparent(traceparent)
    if context is not None and context.sampled:
        above = parse_traceparent(parent)
        _exporter.record("job", context, above, start, end, attributes or {}, error)


def shutdown() -> None:
    """Export what is left and stop; safe to call when off."""
    global _exporter
    if _exporter is not None:
        _exporter.close()
        _exporter = None
