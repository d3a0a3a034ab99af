"""Whether an object still is what was applied: what others added is theirs to say."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from disagfusion_operator.api.base import number
from disagfusion_operator.desired.names import HASH_ANNOTATION
from disagfusion_operator.k8s.port import Object

_KEYS = ("name", "mountPath", "containerPort", "port", "uid", "topologyKey", "key")
_ATOMIC = frozenset(
    (
        *("selector", "podSelector", "namespaceSelector", "labelSelector", "nodeSelector"),
        *("ingress", "tolerations", "items", "fieldRef", "secretKeyRef", "configMapKeyRef"),
    )
)
"""Fields that have one owner as a whole, by the API's schema (`x-kubernetes-map-type: atomic` and
`x-kubernetes-list-type: atomic`): what others add to them goes when they are applied again."""
_DEFAULTED = ("apiVersion", "divisor")
"""What the API server adds to references."""
_QUANTITY = re.compile(r"\d+(\.\d+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?")


def digest(manifest: Object) -> str:
    """Return what tells a manifest from others."""
    text = json.dumps(manifest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def stamped(manifest: Object) -> Object:
    """Return a manifest with its own digest as an annotation."""
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), HASH_ANNOTATION: digest(manifest)}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


def differences(wanted: Any, found: Any, path: str = "", *, exact: bool = False) -> list[str]:
    """Return where an object is not what was applied, as paths with what is there instead.

    Only what `wanted` speaks of is compared, but for what the API takes as a whole. Nothing, an
    empty list and an empty object are the same, as they are to the API server.

    Args:
        wanted: What was applied.
        found: What is there.
        path: Where that is.
        exact: Whether nothing else may be there.
    """
    if isinstance(wanted, Mapping):
        if not wanted and not found:
            return []
        if not isinstance(found, Mapping):
            return [f"{path}={_short(found)}"]
        return (_added(wanted, found, path) if exact else []) + [
            one
            for name, value in wanted.items()
            for one in differences(
                value, found.get(name), f"{path}.{name}", exact=exact or name in _ATOMIC
            )
        ]
    if isinstance(wanted, Sequence) and not isinstance(wanted, str):
        return _list_differences(wanted, found, path, exact=exact)
    if wanted == found or (wanted in (None, "", False, 0) and found is None):
        return []
    if _same_quantity(wanted, found):
        return []
    return [f"{path}={_short(found)}"]


def _added(wanted: Mapping[str, Any], found: Mapping[str, Any], path: str) -> list[str]:
    return [
        f"{path}.{name}={_short(value)}"
        for name, value in found.items()
        # An empty selector is not nothing: it is everything.
        if name not in wanted and name not in _DEFAULTED and value not in (None, [])
    ]


def _list_differences(wanted: Sequence[Any], found: Any, path: str, *, exact: bool) -> list[str]:
    if not wanted and not found:
        return []
    if not isinstance(found, Sequence) or isinstance(found, str):
        return [f"{path}={_short(found)}"]
    if not exact and (key := _key_of(wanted)):
        there = {_identity(one, key): one for one in found if isinstance(one, Mapping)}
        return [
            one
            for value in wanted
            for one in differences(value, there.get(_identity(value, key)), f"{path}[{value[key]}]")
        ]
    if len(wanted) != len(found):
        return [f"{path}={len(found)} items"]
    return [
        one
        for index, (value, other) in enumerate(zip(wanted, found, strict=True))
        for one in differences(value, other, f"{path}[{index}]", exact=exact)
    ]


def _key_of(items: Sequence[Any]) -> str:
    for key in _KEYS:
        if all(isinstance(one, Mapping) and key in one for one in items):
            return key
    return ""


def _identity(one: Mapping[str, Any], key: str) -> tuple[Any, Any]:
    return one.get(key), one.get("protocol", "TCP") if key in ("port", "containerPort") else None


def _same_quantity(wanted: Any, found: Any) -> bool:
    texts = (wanted, found)
    return all(isinstance(one, str) and _QUANTITY.fullmatch(one) for one in texts) and (
        number(wanted) == number(found)
    )


def _short(value: Any) -> str:
    return json.dumps(value)[:64]
