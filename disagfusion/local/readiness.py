"""Whether the stages have loaded the model, seen from outside."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from disagfusion.local.logs import last_lines

_SECONDS = 5.0
_VALUE = r'"(?:[^"\\]|\\.)*"'
_SAMPLE = re.compile(
    rf"^disagfusion_workers\{{(?P<labels>(?:\w+={_VALUE},?)*)\}} (?P<value>\S+)$", re.MULTILINE
)
_LABEL = re.compile(rf"(\w+)=({_VALUE})")


def ready_workers(metrics_address: str) -> dict[str, int]:
    """Ask a gateway's metrics how many workers of each stage have loaded.

    Args:
        metrics_address: `host:port`.

    Returns:
        Numbers by stage; nothing while the gateway cannot be reached.
    """
    # It goes to this machine, whatever proxy the environment names.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{metrics_address}/metrics", timeout=_SECONDS) as answer:
            return parse_workers(answer.read().decode())
    except (OSError, urllib.error.URLError):
        return {}


def parse_workers(text: str) -> dict[str, int]:
    """Return the ready workers by stage in the text of a gateway's metrics."""
    found: dict[str, int] = {}
    for sample in _SAMPLE.finditer(text):
        labels = dict(_LABEL.findall(sample["labels"]))
        if labels["state"] == '"ready"':
            stage = labels["stage"].strip('"')
            found[stage] = found.get(stage, 0) + int(float(sample["value"]))
    return found


def missing(replicas: Mapping[str, int], ready: Mapping[str, int]) -> list[str]:
    """Return the stages of which not all workers are ready."""
    return [stage for stage, count in replicas.items() if ready.get(stage, 0) < count]


def load_problem(log: Path) -> str:
    """Return why a stage service could not load its model, from the end of its log.

    Args:
        log: A front's log, one JSON object per line.

    Returns:
        The problem; empty where there is none.
    """
    for line in last_lines(log, 20):
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and entry.get("event") == "model not loaded":
            return str(entry.get("problem", ""))
    return ""
