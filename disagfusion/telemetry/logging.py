"""Structured logs: one JSON object per line, or coloured lines for people.

What is bound with `bound` (job id, stage, pipeline) is in every line that is logged within, by our
code and by libraries that use the standard library's logging. `job_id` is the request's id.
Tracebacks show no local variables: a prompt or a key may be among them.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Literal

import structlog

LogFormat = Literal["json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]


def configure(format: LogFormat = "json", level: LogLevel = "info", **context: str) -> None:
    """Send all logs to standard error.

    Args:
        format: "json" for machines, "console" for people.
        level: The least severe level that is written.
        **context: Bound for the whole process, such as component, stage and pipeline.
    """
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        _process_context(dict(context)),
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: list[structlog.types.Processor]
    if format == "json":
        renderer = [
            structlog.processors.ExceptionRenderer(
                structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
            ),
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    else:
        renderer = [
            structlog.dev.ConsoleRenderer(
                colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)


def _process_context(context: dict[str, str]) -> structlog.types.Processor:
    # A context variable would not reach the threads that libraries start.
    def add(
        _logger: object, _method: str, event: structlog.types.EventDict
    ) -> structlog.types.EventDict:
        return {**context, **event}

    return add


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return a logger; events are constant strings, what varies goes into keyword arguments."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


@contextmanager
def bound(**context: object) -> Generator[None]:
    """Add fields such as `job_id`, `stage` and `attempt` to every line logged within."""
    with structlog.contextvars.bound_contextvars(**context):
        yield
