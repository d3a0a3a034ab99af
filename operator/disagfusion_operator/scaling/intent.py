"""What the balancer wants, kept on the pipeline so that another operator goes on with it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from disagfusion.scheduling.decision import Place
from disagfusion_operator.desired.names import version_of
from disagfusion_operator.k8s.port import Object

ANNOTATION = "disagfusion.dev/replicas"


@dataclass(frozen=True, slots=True)
class Intent:
    """How many replicas there should be.

    Attributes:
        desired: By place.
        asleep: The replicas there were before all stages went to zero; empty: they have not.
        begun: The version of which every stage has been ready once; None: of none. What a version
            accepts, gateways know from its workers.
        planned: Whether it is the plan that a pipeline begins with: no load has changed it.
    """

    desired: Mapping[Place, int]
    asleep: Mapping[Place, int] = field(default_factory=dict)
    begun: str | None = None
    planned: bool = False

    def text(self) -> str:
        """Return it as it stands in the annotation."""
        parts: dict[str, Any] = {"desired": _nested(self.desired)}
        if self.asleep:
            parts["asleep"] = _nested(self.asleep)
        if self.begun is not None:
            parts["begun"] = self.begun
        if self.planned:
            parts["planned"] = True
        return json.dumps(parts, sort_keys=True, separators=(",", ":"))


def read_intent(text: str | None) -> Intent | None:
    """Return what stands in the annotation; None where nothing that can be read does."""
    if text is None:
        return None
    try:
        found = json.loads(text)
        asleep = _flat(found.get("asleep", {}))
        begun = found.get("begun")
        return Intent(
            _flat(found["desired"]),
            asleep,
            begun=begun if isinstance(begun, str) else None,
            planned=found.get("planned") is True,
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None


def common_version(deployments: Iterable[Object]) -> str | None:
    """Return the version that all Deployments have; None while they have several, or none."""
    found = {version_of(one["spec"]["template"]) for one in deployments}
    return found.pop() if len(found) == 1 else None


def _nested(counts: Mapping[Place, int]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for place, count in counts.items():
        found.setdefault(place.stage, {})[place.pool] = count
    return found


def _flat(nested: Mapping[str, Mapping[str, Any]]) -> dict[Place, int]:
    counts = {}
    for stage, pools in nested.items():
        for pool, count in pools.items():
            if not isinstance(count, int) or isinstance(count, bool) or count < 0:
                raise ValueError(f"{stage} on {pool}: {count!r} is no number of replicas")
            counts[Place(stage, pool)] = count
    return counts
