"""The fields of an object as server-side apply sees them: paths, which have owners, and leaves."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from disagfusion_operator.k8s.port import Object

Path = tuple[Any, ...]

_KEYS = ("name", "mountPath", "containerPort", "port", "uid", "topologyKey", "type")
_SETS = ("finalizers",)
# Owned as a whole, as the API's schema has them.
_ATOMIC = ("selector", "podSelector", "ingress", "nodeSelector", "tolerations")


def body(manifest: Object) -> Object:
    """Return what managers own: no identity, nothing that the server writes, no status."""
    identity = ("namespace", "name", "uid", "resourceVersion", "generation")
    written = (*identity, "creationTimestamp", "deletionTimestamp", "managedFields")
    metadata = {k: v for k, v in manifest["metadata"].items() if k not in written}
    rest = {k: v for k, v in manifest.items() if k not in ("metadata", "status")}
    return {**rest, "metadata": metadata}


def flatten(value: Any, path: Path = ()) -> dict[Path, Any]:
    """Return the leaves by path; an item of a list goes by its key, one of a set by itself."""
    if path and path[-1] in _ATOMIC:
        return {path: copy.deepcopy(value)}
    if isinstance(value, Mapping) and (value or not path):
        return {
            place: leaf
            for name, one in value.items()
            for place, leaf in flatten(one, (*path, name)).items()
        }
    if isinstance(value, list) and path and path[-1] in _SETS:
        return {(*path, ("=", one)): one for one in value}
    if isinstance(value, list) and value:
        key = next((k for k in _KEYS if all(isinstance(o, dict) and k in o for o in value)), "")
        if key:
            return {
                place: leaf
                for one in value
                for place, leaf in flatten(one, (*path, (key, one[key]))).items()
            }
    return {path: copy.deepcopy(value)}


def unflatten(leaves: Mapping[Path, Any]) -> Any:
    """Return what has these leaves."""
    root: Any = {}
    for path, value in leaves.items():
        _put(root, path, value)
    return root


def _put(target: Any, path: Path, value: Any) -> None:
    step, rest = path[0], path[1:]
    if not rest:
        target[step] = copy.deepcopy(value)
        return
    if isinstance(rest[0], tuple):
        items = target.setdefault(step, [])
        key, name = rest[0]
        if key == "=":
            items.append(name)
            return
        item = next((one for one in items if one.get(key) == name), None)
        if item is None:
            item = {key: name}
            items.append(item)
        if len(rest) == 1:
            return
        _put(item, rest[1:], value)
        return
    _put(target.setdefault(step, {}), rest, value)


def write(content: Object, owned: Object) -> None:
    """Put what managers own into an object; what the server writes stays."""
    kept = {k: v for k, v in content["metadata"].items() if k not in body(content)["metadata"]}
    status = {"status": content["status"]} if "status" in content else {}
    content.clear()
    content.update(owned)
    content["metadata"] = {**kept, **owned.get("metadata", {})}
    content.update(status)


def fields(owned: set[Path]) -> Object:
    """Return paths as `fieldsV1` has them, but for how it writes the keys of items."""
    root: Object = {}
    for path in owned:
        target = root
        for step in path:
            name = f"f:{step}" if isinstance(step, str) else f"k:{step}"
            target = target.setdefault(name, {})
    return root
