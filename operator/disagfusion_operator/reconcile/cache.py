"""What the operator knows of the cluster without asking: filled by lists, kept fresh by watches.

Children are kept as compressed JSON: a hundred pipelines have some two thousand, and each is looked
at only when it or its pipeline has changed. Of pods, nodes and Deployments what is needed again and
again is kept as it is, and only that.
"""

from __future__ import annotations

import json
import zlib
from collections import Counter
from collections.abc import AsyncIterable, Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from disagfusion_operator.desired.names import HASH_ANNOTATION, PIPELINE_LABEL
from disagfusion_operator.k8s.kinds import (
    AUTOSCALER,
    CHILDREN,
    DEPLOYMENT,
    NODE,
    PIPELINE,
    POD,
    SCALED_OBJECT,
)
from disagfusion_operator.k8s.port import Kind, Object
from disagfusion_operator.reconcile import trims
from disagfusion_operator.scaling.view import Key

Name = tuple[str, str]
"""Namespace and name."""

_TOMBSTONES = 10_000
_BRIEF = (NODE, AUTOSCALER, SCALED_OBJECT)


@dataclass(slots=True)
class Child:
    """An object that belongs to a pipeline.

    Attributes:
        kind: Of it.
        namespace: Of it.
        name: Of it.
        uid: Of it.
        version: Its resourceVersion.
        applied: The hash of what was applied.
        deleting: Whether it is on its way out.
        packed: All of it.
    """

    kind: Kind
    namespace: str
    name: str
    uid: str
    version: str
    applied: str
    deleting: bool
    packed: bytes

    def content(self) -> Object:
        """Return all of it."""
        found: Object = json.loads(zlib.decompress(self.packed))
        return found


class Cache:
    """Objects by kind and name.

    Args:
        wake: Called with a pipeline that something has happened to.
    """

    def __init__(self, wake: Callable[[Key], None] = lambda key: None) -> None:
        self._wake = wake
        self._pipelines: dict[Name, Object] = {}
        self._children: dict[Key, dict[tuple[Kind, str], Child]] = {}
        self._owners: dict[tuple[Kind, Name], Key] = {}
        self._deployments: dict[Key, dict[str, Object]] = {}
        self._pods: dict[Key, dict[str, Object]] = {}
        self._nodes: dict[str, Object] = {}
        self._autoscalers: dict[str, dict[tuple[Kind, str], Object]] = {}
        # Of nodes and autoscalers, of which nothing is kept that changes every few seconds.
        self._seen: dict[tuple[Kind, Name], tuple[str, int]] = {}
        self._gone: dict[str, None] = {}
        self._stamps: Counter[Key] = Counter()
        self.nodes_version = 0
        self.pipelines_version = 0

    # What is there.

    def pipelines(self) -> list[Key]:
        """Return all pipelines."""
        return [Key(*name) for name in self._pipelines]

    def pipeline(self, key: Key) -> Object | None:
        """Return a pipeline."""
        return self._pipelines.get((key.namespace, key.name))

    def child(self, key: Key, kind: Kind, name: str) -> Child | None:
        """Return what belongs to a pipeline."""
        return self._children.get(key, {}).get((kind, name))

    def children(self, key: Key) -> list[Child]:
        """Return all that belongs to a pipeline."""
        return list(self._children.get(key, {}).values())

    def deployments(self, key: Key) -> list[Object]:
        """Return a pipeline's Deployments, without what only their pods need."""
        return list(self._deployments.get(key, {}).values())

    def pods(self, key: Key) -> list[Object]:
        """Return a pipeline's pods, those that terminate included."""
        return list(self._pods.get(key, {}).values())

    def stamp(self, key: Key) -> int:
        """Return a number that is another whenever something that belongs to a pipeline is."""
        return self._stamps[key]

    def nodes(self) -> list[Object]:
        """Return all nodes."""
        return list(self._nodes.values())

    def autoscalers(self, namespace: str) -> list[Object]:
        """Return the autoscalers of a namespace."""
        return list(self._autoscalers.get(namespace, {}).values())

    # What happens.

    def put(self, kind: Kind, found: Object) -> None:
        """Take note of an object as it is now; an older state than is known changes nothing."""
        metadata = found["metadata"]
        if metadata.get("uid", "") in self._gone:
            return
        if _version(found) < self._known_version(kind, metadata):
            return
        if kind in _BRIEF:
            name = (metadata.get("namespace", ""), metadata["name"])
            self._seen[kind, name] = metadata.get("uid", ""), _version(found)
        if kind == NODE:
            self._put_node(found)
        elif kind == PIPELINE:
            self._put_pipeline(found)
        elif kind in (AUTOSCALER, SCALED_OBJECT):
            space = self._autoscalers.setdefault(metadata["namespace"], {})
            trimmed = trims.autoscaler(kind, found)
            # Its status changes every few seconds, and is of no interest.
            if space.get((kind, metadata["name"])) != trimmed:
                space[kind, metadata["name"]] = trimmed
                self._wake_namespace(metadata["namespace"])
        else:
            self._put_owned(kind, found)

    def drop(self, kind: Kind, gone: Object) -> None:
        """Take note of an object that is gone for good."""
        metadata = gone["metadata"]
        if uid := metadata.get("uid"):
            self._gone[uid] = None
            while len(self._gone) > _TOMBSTONES:
                del self._gone[next(iter(self._gone))]
        self._remove(kind, (metadata.get("namespace", ""), metadata["name"]), uid or "")

    async def replace(
        self, kind: Kind, before: Collection[Name], found: AsyncIterable[Object]
    ) -> None:
        """Take note of all objects of a kind.

        Args:
            kind: Of them.
            before: Which were known when the list was begun; those that are not in it are gone.
            found: The list.
        """
        gone = set(before)
        async for one in found:
            gone.discard((one["metadata"].get("namespace", ""), one["metadata"]["name"]))
            self.put(kind, one)
        for name in gone:
            self._remove(kind, name, "")

    def _put_pipeline(self, found: Object) -> None:
        metadata = found["metadata"]
        metadata.pop("managedFields", None)
        self._pipelines[metadata["namespace"], metadata["name"]] = found
        self.pipelines_version += 1
        self._wake(Key(metadata["namespace"], metadata["name"]))

    def _put_node(self, found: Object) -> None:
        name, trimmed = found["metadata"]["name"], trims.node(found)
        if self._nodes.get(name) != trimmed:
            self._nodes[name] = trimmed
            self.nodes_version += 1

    def _put_owned(self, kind: Kind, found: Object) -> None:
        metadata = found["metadata"]
        name = (metadata["namespace"], metadata["name"])
        pipeline = (metadata.get("labels") or {}).get(PIPELINE_LABEL)
        if not pipeline:
            self._remove(kind, name, "")
            return
        key = Key(metadata["namespace"], pipeline)
        before = self._owners.get((kind, name))
        if before not in (None, key):
            self._remove(kind, name, "")
        self._owners[kind, name] = key
        if kind == POD:
            self._pods.setdefault(key, {})[metadata["name"]] = trims.pod(found)
            self._wake(key)
            return
        if kind == DEPLOYMENT:
            trimmed = trims.deployment(found)
            self._deployments.setdefault(key, {})[metadata["name"]] = trimmed
        # Everybody's claims on fields: larger than all the rest.
        metadata.pop("managedFields", None)
        self._children.setdefault(key, {})[kind, metadata["name"]] = Child(
            kind,
            *name,
            uid=metadata.get("uid", ""),
            version=metadata.get("resourceVersion", ""),
            applied=(metadata.get("annotations") or {}).get(HASH_ANNOTATION, ""),
            deleting="deletionTimestamp" in metadata,
            packed=zlib.compress(json.dumps(found, separators=(",", ":")).encode(), 1),
        )
        self._stamps[key] += 1
        self._wake(key)

    def _remove(self, kind: Kind, name: Name, uid: str) -> None:
        self._seen.pop((kind, name), None)
        if kind == PIPELINE:
            known = self._pipelines.get(name)
            if known is not None and uid in ("", known["metadata"].get("uid")):
                del self._pipelines[name]
                self.pipelines_version += 1
                self._wake(Key(*name))
        elif kind == NODE:
            if self._nodes.pop(name[1], None) is not None:
                self.nodes_version += 1
        elif kind in (AUTOSCALER, SCALED_OBJECT):
            if self._autoscalers.get(name[0], {}).pop((kind, name[1]), None) is not None:
                self._wake_namespace(name[0])
        else:
            self._remove_owned(kind, name, uid)

    def _remove_owned(self, kind: Kind, name: Name, uid: str) -> None:
        key = self._owners.get((kind, name))
        if key is None or (uid and self._uid(kind, key, name[1]) not in ("", uid)):
            return
        del self._owners[kind, name]
        if kind == POD:
            _pop(self._pods, key, name[1])
        else:
            _pop(self._children, key, (kind, name[1]))
            self._stamps[key] += 1
            if kind == DEPLOYMENT:
                _pop(self._deployments, key, name[1])
        self._wake(key)

    def _uid(self, kind: Kind, key: Key, name: str) -> str:
        if kind == POD:
            return str(self._pods.get(key, {}).get(name, {}).get("metadata", {}).get("uid", ""))
        child = self._children.get(key, {}).get((kind, name))
        return child.uid if child else ""

    def _wake_namespace(self, namespace: str) -> None:
        for space, name in self._pipelines:
            if space == namespace:
                self._wake(Key(space, name))

    def names(self, kind: Kind, namespace: str = "") -> list[Name]:
        """Return the objects of a kind, in a namespace or in all."""
        return [name for name in self._names(kind) if namespace in ("", name[0])]

    def _names(self, kind: Kind) -> list[Name]:
        if kind == PIPELINE:
            return list(self._pipelines)
        if kind == NODE:
            return [("", name) for name in self._nodes]
        if kind in (AUTOSCALER, SCALED_OBJECT):
            return [
                (namespace, name)
                for namespace, found in self._autoscalers.items()
                for one, name in found
                if one == kind
            ]
        return [name for one, name in self._owners if one == kind]

    def _known_version(self, kind: Kind, metadata: Object) -> int:
        name = (metadata.get("namespace", ""), metadata["name"])
        known: Object | None = None
        if kind == PIPELINE:
            known = self._pipelines.get(name)
        elif kind in _BRIEF:
            uid, version = self._seen.get((kind, name), ("", 0))
            return version if uid == metadata.get("uid", "") else 0
        elif (key := self._owners.get((kind, name))) is not None:
            if kind == POD:
                known = self._pods.get(key, {}).get(name[1])
            elif child := self._children.get(key, {}).get((kind, name[1])):
                same = child.uid == metadata.get("uid", "")
                return _number(child.version) if same else 0
        if known is None or known["metadata"].get("uid") != metadata.get("uid"):
            return 0
        return _version(known)


def watched_kinds() -> Iterable[Kind]:
    """Return the kinds of which the cache has objects with the pipeline's label."""
    return (*CHILDREN, POD)


def _pop(table: dict[Key, dict[Any, Any]], key: Key, name: Any) -> None:
    found = table.get(key)
    if found is not None:
        found.pop(name, None)
        if not found:
            del table[key]


def _version(found: Object) -> int:
    return _number(found["metadata"].get("resourceVersion", ""))


def _number(version: str) -> int:
    # Kubernetes promises since 1.35, and has always kept, that these grow and can be compared.
    return int(version) if version.isdigit() else 0
