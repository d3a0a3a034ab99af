"""Applying what differs, and nothing else."""

from __future__ import annotations

from disagfusion.errors import AbortedError, AlreadyExistsError
from disagfusion.telemetry.logging import get_logger
from disagfusion_operator.desired.names import MANAGED_LABEL, MANAGER, PIPELINE_LABEL
from disagfusion_operator.k8s.kinds import CLAIM, PIPELINE, kind_of
from disagfusion_operator.k8s.port import Cluster, Object
from disagfusion_operator.reconcile.cache import Cache
from disagfusion_operator.reconcile.drift import differences, digest, stamped
from disagfusion_operator.scaling.view import Key

NAMESAKE_GOES = "NAMESAKE_GOES"
"""Why an object is not applied that is a deleted pipeline's, of the same name."""
_NO_VERSION = "1"
"""A resourceVersion that no object has. Applied with it, one that is there is a conflict, whoever
manages its fields, and one that is not is made: nobody needs to look first."""

_log = get_logger(__name__)


class Applier:
    """Brings objects to what they should be. What belongs to others is left as it is.

    Args:
        cluster: Where they are.
        cache: What is known of them.
    """

    def __init__(self, cluster: Cluster, cache: Cache) -> None:
        self._cluster = cluster
        self._cache = cache
        # What was compared already, and what the server made of what was applied.
        self._same: dict[tuple[Key, str, str], tuple[str, str]] = {}
        self._normal: dict[tuple[Key, str, str], tuple[str, frozenset[str]]] = {}

    async def ensure(self, key: Key, manifest: Object) -> bool:
        """Apply a manifest if the object is not there or is another.

        Returns:
            Whether it was applied.

        Raises:
            AlreadyExistsError: Somebody else's object has the name.
            AbortedError: With the reason `NAMESAKE_GOES`: that of a pipeline of the same name that
                was deleted has it, and goes by itself.
            DisagfusionError: The API server does not take it, or is away.
        """
        child = self._cache.child(key, kind_of(manifest), manifest["metadata"]["name"])
        if child is None:
            try:
                await self._apply(key, manifest, stamped(manifest), new=True)
            except AbortedError:
                manifest = _fitted(manifest, await self._own(key, manifest))
                await self._apply(key, manifest, stamped(manifest))
            return True
        if child.applied != digest(manifest):
            found = child.content()
            self._check(key, manifest, found)
            manifest = _fitted(manifest, found)
        if self.is_current(key, manifest):
            return False
        await self._apply(key, manifest, stamped(manifest))
        return True

    def is_current(self, key: Key, manifest: Object) -> bool:
        """Tell whether an object is what it should be, by the cache."""
        kind, name = kind_of(manifest), manifest["metadata"]["name"]
        child = self._cache.child(key, kind, name)
        wanted = digest(manifest)
        if child is None or child.applied != wanted:
            return False
        place = (key, kind.kind, name)
        if self._same.get(place) == (child.version, wanted):
            return True
        found = frozenset(differences(manifest, child.content()))
        usual = self._normal.get(place, ("", frozenset[str]()))
        if found and (usual[0] != wanted or not found <= usual[1]):
            _log.info("drifted", pipeline=str(key), object=f"{kind.kind}/{name}", at=sorted(found))
            return False
        self._same[place] = (child.version, wanted)
        return True

    async def make(self, key: Key, manifest: Object, once: Object) -> Object | None:
        """Make an object of a manifest and of fields of its specification that count only now.

        Args:
            key: Whose it is.
            manifest: What it is to be; it counts as applied.
            once: Fields of the specification that are somebody else's from then on.

        Returns:
            The object that was there although the cache did not know it; None: it was made.

        Raises:
            AlreadyExistsError: Somebody else's object has the name.
            DisagfusionError: The API server does not take it, or is away.
        """
        whole = stamped(manifest)
        written = {**whole, "spec": {**whole["spec"], **once}}
        try:
            await self._apply(key, manifest, written, new=True)
        except AbortedError:
            return await self._own(key, manifest)
        return None

    async def _own(self, key: Key, manifest: Object) -> Object:
        """Return an object that is there, if it is the pipeline's or nobody's."""
        metadata = manifest["metadata"]
        found = await self._cluster.get(kind_of(manifest), metadata["namespace"], metadata["name"])
        self._check(key, manifest, found)
        return found

    def _check(self, key: Key, manifest: Object, found: Object) -> None:
        """Refuse an object that is not the pipeline's. A volume that was retained is nobody's."""
        pipeline = self._cache.pipeline(key)
        uid = pipeline["metadata"]["uid"] if pipeline else ""
        metadata = found["metadata"]
        owners = metadata.get("ownerReferences") or ()
        if owner := next((one for one in owners if one.get("controller")), None):
            if owner["uid"] == uid:
                return
            if (owner["kind"], owner["name"]) == (PIPELINE.kind, key.name):
                # Changed in mid collection, what is kept in it would be the deleted pipeline's.
                raise AbortedError(
                    "it belongs to a pipeline of this name that was deleted, and goes first",
                    reason=NAMESAKE_GOES,
                )
        else:
            labels = metadata.get("labels") or {}
            mine = (MANAGER, key.name)
            if (labels.get(MANAGED_LABEL), labels.get(PIPELINE_LABEL)) == mine:
                return
        raise AlreadyExistsError(
            f"it is there already and is somebody else's: give the pipeline another name, or take"
            f" away the {kind_of(manifest).kind}",
            reason="NAME_TAKEN",
        )

    async def _apply(
        self, key: Key, manifest: Object, written: Object, *, new: bool = False
    ) -> None:
        kind, name = kind_of(manifest), manifest["metadata"]["name"]
        if new:
            metadata = {**written["metadata"], "resourceVersion": _NO_VERSION}
            written = {**written, "metadata": metadata}
        answer = await self._cluster.apply(written, force=not new)
        _log.info("applied", pipeline=str(key), object=f"{kind.kind}/{name}", new=new)
        # What still differs is how the server writes it.
        left = frozenset(differences(manifest, answer))
        self._normal[key, kind.kind, name] = (digest(manifest), left)
        self._cache.put(kind, answer)

    def forget(self, key: Key) -> None:
        """Forget what is known about a pipeline's objects."""
        for table in (self._same, self._normal):
            for place in [one for one in table if one[0] == key]:
                del table[place]


def _fitted(manifest: Object, found: Object) -> Object:
    """Return a manifest with what can never change of the object that is there."""
    if kind_of(manifest) != CLAIM or not (modes := found["spec"].get("accessModes")):
        return manifest
    return {**manifest, "spec": {**manifest["spec"], "accessModes": modes}}
