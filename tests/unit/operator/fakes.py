"""An API server in memory: what the operator relies on, as the real one does it.

Server-side apply with ownership by field manager, resourceVersion and generation, subresources,
finalizers, and what belongs to an object going with it.
"""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from disagfusion_operator.k8s.kinds import DEPLOYMENT, PIPELINE, POD, kind_of
from disagfusion_operator.k8s.port import BALANCER, OPERATOR, Cluster, Kind, Object
from managed_fields import Path, body, fields, flatten, unflatten, write

from disagfusion.errors import (
    AbortedError,
    AlreadyExistsError,
    DisagfusionError,
    NotFoundError,
)

Place = tuple[Kind, str, str]


@dataclass
class Stored:
    """An object and who owns its fields."""

    kind: Kind
    content: Object
    owners: dict[str, set[Path]] = field(default_factory=dict)


class FakeClock:
    """Unix seconds that pass when told to."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def text(self) -> str:
        return datetime.fromtimestamp(self.now, UTC).isoformat().replace("+00:00", "Z")


class FakeCluster(Cluster):
    """An API server.

    Attributes:
        calls: Verb, plural and name of every call that was answered.
        events: What was recorded, as reason and message.
        away: While set, every call fails with it.
        refuse: Called before every write with verb and object; may raise.
        follow: Called after every change with kind, object and whether it is gone.
        normalize: Called with what was applied; writes it in the server's own way.
        lingering: Whether pods whose owner has gone still finish what they have.
    """

    def __init__(self, clock: FakeClock | None = None) -> None:
        self.clock = clock or FakeClock()
        self.stored: dict[Place, Stored] = {}
        self.calls: list[tuple[str, str, str]] = []
        self.events: list[tuple[str, str]] = []
        self.away: DisagfusionError | None = None
        self.refuse: Callable[[str, Object], None] = lambda verb, found: None
        self.follow: Callable[[Kind, Object, bool], None] = lambda kind, found, gone: None
        self.normalize: Callable[[Object], None] = lambda found: None
        self.lingering = False
        self._version = 1  # as with a real one, no object has the first
        self._uids = 0

    # What tests look at.

    def all(self, kind: Kind) -> list[Object]:
        return [copy.deepcopy(one.content) for one in self.stored.values() if one.kind == kind]

    def names(self, kind: Kind) -> list[str]:
        return sorted(one["metadata"]["name"] for one in self.all(kind))

    def peek(self, kind: Kind, namespace: str, name: str) -> Object:
        return copy.deepcopy(self._find(kind, namespace, name).content)

    def owners(self, kind: Kind, namespace: str, name: str, path: Path) -> list[str]:
        found = self._find(kind, namespace, name)
        return sorted(manager for manager, owned in found.owners.items() if path in owned)

    # What others do.

    def create(self, manifest: Object, manager: str = "kubectl") -> Object:
        """Make an object, or write it as it is."""
        kind = kind_of(manifest)
        metadata = manifest["metadata"]
        place = (kind, metadata.get("namespace", ""), metadata["name"])
        stored = self.stored.get(place)
        content = copy.deepcopy(manifest)
        if stored is None:
            stored = self._make(kind, content)
        else:
            kept = {**stored.content["metadata"], **content["metadata"]}
            stored.content = {**stored.content, **content, "metadata": kept}
            self._touch(stored, spec=True)
        stored.owners.setdefault(manager, set()).update(flatten(body(content)))
        self._changed(stored)
        return copy.deepcopy(stored.content)

    def change(
        self, kind: Kind, namespace: str, name: str, *path: Any, value: Any, by: str = "kubectl"
    ) -> None:
        """Set a field, as somebody with `kubectl edit` does."""
        stored = self._find(kind, namespace, name)
        target: Any = stored.content
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = value
        full = tuple(path)
        for owned in stored.owners.values():
            owned.discard(full)
        stored.owners.setdefault(by, set()).add(full)
        self._touch(stored, spec=path[0] == "spec")
        self._changed(stored)

    # The port.

    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        self._call("get", kind, name)
        return copy.deepcopy(self._find(kind, namespace, name).content)

    async def list(
        self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> AsyncIterator[Object]:
        self._call("list", kind, "")
        for (_, space, _), one in list(self.stored.items()):
            if (
                one.kind == kind
                and namespace in ("", space)
                and matches(one.content["metadata"].get("labels") or {}, labels or {})
            ):
                yield copy.deepcopy(self._shown(one))

    async def apply(self, manifest: Object, *, force: bool = True) -> Object:
        return self._apply(manifest, OPERATOR, force=force)

    async def replace(self, manifest: Object) -> Object:
        kind, metadata = kind_of(manifest), manifest["metadata"]
        self._call("replace", kind, metadata["name"])
        self.refuse("replace", manifest)
        place = (kind, metadata.get("namespace", ""), metadata["name"])
        stored = self.stored.get(place)
        if not metadata.get("resourceVersion"):
            if stored is not None:
                raise AlreadyExistsError(f"{metadata['name']} exists")
            return copy.deepcopy(self._created(kind, copy.deepcopy(manifest)).content)
        if stored is None:
            raise NotFoundError(f"{metadata['name']} not found")
        if stored.content["metadata"]["resourceVersion"] != metadata["resourceVersion"]:
            raise AbortedError("the object has been modified")
        stored.content = copy.deepcopy(manifest)
        self._touch(stored, spec=True)
        self._changed(stored)
        return copy.deepcopy(stored.content)

    async def apply_status(self, manifest: Object) -> Object:
        kind, metadata = kind_of(manifest), manifest["metadata"]
        self._call("apply_status", kind, metadata["name"])
        stored = self._find(kind, metadata["namespace"], metadata["name"])
        if metadata.get("uid") not in (None, stored.content["metadata"]["uid"]):
            raise AbortedError("another uid")
        stored.content["status"] = copy.deepcopy(manifest["status"])
        self._touch(stored)
        self._changed(stored)
        return copy.deepcopy(stored.content)

    async def scale(self, namespace: str, name: str, replicas: int) -> None:
        self._call("scale", DEPLOYMENT, name)
        stored = self._find(DEPLOYMENT, namespace, name)
        self.refuse("scale", stored.content)
        path = ("spec", "replicas")
        if stored.content["spec"].get("replicas") != replicas:
            stored.content["spec"]["replicas"] = replicas
            for manager, owned in stored.owners.items():
                if manager != BALANCER:
                    owned.discard(path)
            self._touch(stored, spec=True)
        stored.owners.setdefault(BALANCER, set()).add(path)
        self._changed(stored)

    async def annotate(
        self, kind: Kind, namespace: str, name: str, annotations: Mapping[str, str | None]
    ) -> None:
        self._call("annotate", kind, name)
        stored = self._find(kind, namespace, name)
        self._annotate(stored, annotations)

    async def set_finalizers(
        self, kind: Kind, namespace: str, name: str, finalizers: Sequence[str], *, version: str
    ) -> None:
        self._call("set_finalizers", kind, name)
        stored = self._find(kind, namespace, name)
        metadata = stored.content["metadata"]
        if metadata["resourceVersion"] != version:
            raise AbortedError("the object has been modified")
        metadata["finalizers"] = [*finalizers]
        if metadata.get("deletionTimestamp") and not finalizers:
            self.remove(kind, namespace, name)
            return
        self._touch(stored)
        self._changed(stored)

    async def relabel(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        labels: Mapping[str, str],
        annotations: Mapping[str, str | None],
    ) -> Object:
        self._call("relabel", kind, name)
        stored = self._find(kind, namespace, name)
        stored.content["metadata"].setdefault("labels", {}).update(labels)
        self._annotate(stored, annotations)
        return copy.deepcopy(self._shown(stored))

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str = "") -> None:
        self._call("delete", kind, name)
        stored = self.stored.get((kind, namespace, name))
        if stored is None or uid not in ("", stored.content["metadata"]["uid"]):
            return
        metadata = stored.content["metadata"]
        if metadata.get("finalizers") or kind == POD:
            metadata.setdefault("deletionTimestamp", self.clock.text())
            self._touch(stored, spec=True)
            self._changed(stored)
            return
        self.remove(kind, namespace, name)

    async def record(
        self, about: Object, *, warning: bool, reason: str, message: str, action: str
    ) -> None:
        self._call("record", kind_of(about), about["metadata"]["name"])
        self.events.append((reason, message))

    def remove(self, kind: Kind, namespace: str, name: str) -> None:
        """Have an object gone for good, and what belongs to it after it."""
        stored = self.stored.pop((kind, namespace, name), None)
        if stored is None:
            return
        self.follow(kind, copy.deepcopy(stored.content), True)
        uid = stored.content["metadata"]["uid"]
        for (child, space, child_name), one in list(self.stored.items()):
            references = one.content["metadata"].get("ownerReferences") or []
            if not any(reference["uid"] == uid for reference in references):
                continue
            if child == POD and self.lingering:
                self.change(
                    *(child, space, child_name), "metadata", "deletionTimestamp",
                    value=self.clock.text(),
                )  # fmt: skip
            else:
                self.remove(child, space, child_name)

    # How it is done.

    def _apply(self, manifest: Object, manager: str, *, force: bool) -> Object:
        kind, metadata = kind_of(manifest), manifest["metadata"]
        self._call("apply", kind, metadata["name"])
        self.refuse("apply", manifest)
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        stored = self.stored.get((kind, namespace, name))
        wanted = flatten(body(manifest))
        if stored is None:
            if metadata.get("uid"):
                raise AbortedError("uid mismatch: the object does not exist")
            stored = self._created(kind, {**manifest, "metadata": dict(metadata)}, notify=False)
            stored.owners[manager] = set(wanted)
            _default(stored.content)
            self.normalize(stored.content)
            self._changed(stored)
            return copy.deepcopy(self._shown(stored))
        for one in ("uid", "resourceVersion"):
            if metadata.get(one) not in (None, stored.content["metadata"][one]):
                raise AbortedError(f"another {one}")
        before = copy.deepcopy(stored.content)
        content = flatten(body(stored.content))
        mine = stored.owners.get(manager, set())
        others: set[Path] = set().union(
            *(owned for one, owned in stored.owners.items() if one != manager)
        )
        if not force and any(content.get(path) != wanted[path] for path in others & set(wanted)):
            raise AbortedError("Apply failed with 1 conflict")
        for path in mine - set(wanted) - others:
            content.pop(path, None)
        for path, value in wanted.items():
            if content.get(path) != value:
                for one, owned in stored.owners.items():
                    if one != manager:
                        owned.discard(path)
            # A value takes the place of what was below it or above it.
            for other in [
                one
                for one in content
                if one != path and (one[: len(path)] == path or path[: len(one)] == one)
            ]:
                content.pop(other)
            content[path] = value
        stored.owners[manager] = set(wanted)
        write(stored.content, unflatten(content))
        _default(stored.content)
        self.normalize(stored.content)
        metadata = stored.content["metadata"]
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            found = copy.deepcopy(stored.content)
            self.remove(kind, namespace, name)
            return found
        if stored.content != before:
            self._touch(stored, spec=stored.content.get("spec") != before.get("spec"))
            self._changed(stored)
        return copy.deepcopy(self._shown(stored))

    def _created(self, kind: Kind, content: Object, *, notify: bool = True) -> Stored:
        stored = self._make(kind, copy.deepcopy(content))
        if notify:
            self._changed(stored)
        return stored

    def _make(self, kind: Kind, content: Object) -> Stored:
        self._uids += 1
        metadata = content["metadata"]
        metadata.update(
            uid=f"uid-{self._uids}",
            generation=1,
            creationTimestamp=self.clock.text(),
        )
        stored = Stored(kind, content)
        self.stored[kind, metadata.get("namespace", ""), metadata["name"]] = stored
        self._touch(stored)
        return stored

    def _annotate(self, stored: Stored, annotations: Mapping[str, str | None]) -> None:
        found = stored.content["metadata"].setdefault("annotations", {})
        found.update(annotations)
        for key in [key for key, value in found.items() if value is None]:
            del found[key]
        self._touch(stored)
        self._changed(stored)

    def _touch(self, stored: Stored, *, spec: bool = False) -> None:
        self._version += 1
        metadata = stored.content["metadata"]
        metadata["resourceVersion"] = str(self._version)
        if spec:
            metadata["generation"] = metadata.get("generation", 0) + 1

    def _changed(self, stored: Stored) -> None:
        self.follow(stored.kind, copy.deepcopy(self._shown(stored)), False)

    def _shown(self, stored: Stored) -> Object:
        entries = [
            {"manager": manager, "operation": "Apply", "fieldsV1": fields(owned)}
            for manager, owned in stored.owners.items()
        ]
        metadata = {**stored.content["metadata"], "managedFields": entries}
        return {**stored.content, "metadata": metadata}

    def _find(self, kind: Kind, namespace: str, name: str) -> Stored:
        try:
            return self.stored[kind, namespace, name]
        except KeyError:
            raise NotFoundError(f"{kind.plural} {name!r} not found") from None

    def _call(self, verb: str, kind: Kind, name: str) -> None:
        if self.away is not None:
            raise self.away
        self.calls.append((verb, kind.plural, name))


def pipeline(name: str = "digits", namespace: str = "demo", **spec: Any) -> Object:
    """Return a pipeline as people write it."""
    return {
        "apiVersion": PIPELINE.api_version,
        "kind": PIPELINE.kind,
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"model": {"builtin": "digits"}, "pools": {"cpu": {}}, **spec},
    }


def matches(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Return whether labels are as wanted; an empty value means any."""
    return all(key in labels and value in ("", labels[key]) for key, value in wanted.items())


def _default(content: Object) -> None:
    if content["kind"] == "Deployment":
        content["spec"].setdefault("replicas", 1)
        content.setdefault("status", {})
