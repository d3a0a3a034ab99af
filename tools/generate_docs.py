"""Generate docs/metrics.md from the catalog of metrics and docs/configuration.md from the settings.

Usage: python tools/generate_docs.py [--check]
"""

from __future__ import annotations

import argparse
import re
import types
import typing
from collections.abc import Callable
from pathlib import Path

from disagfusion_gateway.settings import GatewaySettings
from disagfusion_operator.settings import OperatorSettings
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from disagfusion.stage.settings import StageSettings
from disagfusion.telemetry.catalog import CATALOG, Metric

DOCS = Path(__file__).resolve().parent.parent / "docs"

# What means the same in every process and is obvious in the code.
_COMMON = {
    "name": "How the process calls itself in logs and records.",
    "tls_key": "PEM file of the private key, not encrypted.",
    "tls_ca": "PEM file of the authorities that sign every certificate.",
    "tls_server_name": "Expected in a server's certificate instead of its address.",
    "log_format": "One JSON object per line, or lines for people.",
    "log_level": "The least severe level that is logged.",
}

_METRICS = """\
# Metrics

<!-- Generated from disagfusion/telemetry/catalog.py by `make docs`; never edited. -->

Every process serves Prometheus metrics at `http://METRICS_LISTEN/metrics` when
`DISAGFUSION_METRICS_LISTEN` is set. Names have the prefix `disagfusion_` and base units; counters
end in `_total`; no label carries a request id. Beside these there are `process_*` and
`python_gc_*` of the process itself.

What to look at first:

- Is a stage the bottleneck? `rate(disagfusion_accelerator_seconds_total{state="busy"}[1m])` is the
  share of its time that it computes; `starved` waits for input, `blocked` for room downstream.
- Are transfers hidden behind compute? `disagfusion_exposed_transfer_seconds_total` beside
  `disagfusion_hidden_transfer_seconds_total`, for inputs (`received`) and outputs (`sent`).
- Do jobs end well? `disagfusion_jobs_total` by `outcome`.
"""

_CONFIGURATION = """\
# Configuration

<!-- Generated from the processes' settings models by `make docs`; never edited. -->

Each process reads its settings from environment variables with the prefix `DISAGFUSION_`. A setting
that is not valid ends the process at once, with a line that names it. The embedded runtime passes
settings on: `LocalRuntime(settings={"slots": "3"})` sets `DISAGFUSION_SLOTS` for every process.
"""


def metrics_page() -> str:
    """Return docs/metrics.md."""
    return _METRICS + "".join(_metric(metric) for metric in CATALOG)


def _metric(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    buckets = ", ".join(f"{bound:g}" for bound in metric.buckets)
    kind = metric.kind.value + (f", labels {labels}" if labels else "")
    text = f"\n## `{metric.name}`\n\n{kind}\n\n{metric.help}\n"
    return text + (f"\nBuckets: {buckets}.\n" if buckets else "")


def configuration_page() -> str:
    """Return docs/configuration.md."""
    gateway = _settings("Gateway", "python -m disagfusion_gateway", GatewaySettings)
    stage = _settings(
        "Stage services",
        "python -m disagfusion_encoder`, `python -m disagfusion_dit`, "
        "`python -m disagfusion_decoder",
        StageSettings,
    )
    operator = _settings("Operator", "python -m disagfusion_operator", OperatorSettings)
    return _CONFIGURATION + gateway + stage + operator


def _settings(title: str, command: str, model: type[BaseSettings]) -> str:
    described = _COMMON | _attributes(model)
    prefix = model.model_config.get("env_prefix", "")
    rows = "".join(
        f"| `{prefix}{name.upper()}` | {_type(field)} | {_default(field)} "
        f"| {described.get(name, '')} |\n"
        for name, field in model.model_fields.items()
    )
    return (
        f"\n## {title}\n\n`{command}`\n\n"
        f"| variable | type | default | meaning |\n|---|---|---|---|\n{rows}"
    )


def _attributes(model: type[BaseSettings]) -> dict[str, str]:
    """Return what the class docstring says about each attribute, in one line each."""
    _, _, section = (model.__doc__ or "").partition("Attributes:\n")
    found = re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", section, re.MULTILINE)
    return {name: " ".join(text.split()).replace("|", r"\|") for name, text in found}


def _type(field: FieldInfo) -> str:
    annotation = field.annotation
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        inner = [part for part in typing.get_args(annotation) if part is not type(None)]
        annotation = inner[0]
    if typing.get_origin(annotation) is typing.Literal:
        return " or ".join(f"`{value}`" for value in typing.get_args(annotation))
    if typing.get_origin(annotation) is tuple:
        return "JSON list"
    if typing.get_origin(annotation) in (dict, typing.Annotated):
        return "JSON object" if typing.get_origin(annotation) is dict else "text"
    assert isinstance(annotation, type)
    names = {str: "text", int: "integer", float: "number", bool: "boolean", Path: "path"}
    return names.get(annotation, "JSON object")


def _default(field: FieldInfo) -> str:
    if field.default_factory is dict:
        return "none"
    if field.default_factory is not None:
        return "the host's name"
    if field.default is PydanticUndefined:
        return "required"
    if field.default in (None, "", ()):
        return "none"
    return f"`{field.default}`"


PAGES: dict[str, Callable[[], str]] = {
    "metrics.md": metrics_page,
    "configuration.md": configuration_page,
}


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with what is checked in")
    check = parser.parse_args().check
    for name, page in PAGES.items():
        path = DOCS / name
        if not check:
            path.write_text(page())
        elif not path.exists() or path.read_text() != page():
            raise SystemExit(f"docs/{name} is not as generated, run 'make docs'")


if __name__ == "__main__":
    main()
