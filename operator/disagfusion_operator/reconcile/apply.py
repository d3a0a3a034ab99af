"""Applying what differs, and nothing else."""

from __future__ import annotations

from disagfusion.errors import AbortedError, AlreadyExistsError
from disagfusion.telemetry.logging import get_logger
from disagfusion_operator.desired.names import MANAGED_LABEL, MANAGER
from disagfusion_operator.k8s.kinds import kind_of
from disagfusion_operator.k8s.port import Cluster, Object
from disagfusion_operator.reconcile.cache import Cache
from disagfusion_operator.reconcile.drift import differences, digest, stamped
from disagfusion_operator.scaling.view import Key

_log = get_logger(__name__)


class Applier:
    """Brings objects to what they should be.

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
            DisagfusionError: The API server does not take it, or is away.
        """
        if self.is_current(key, manifest):
            return False
        await self.apply(key, manifest)
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
            await self._apply(key, manifest, written, force=False)
        except AbortedError:
            return await self._own(manifest)
        return None

    async def apply(self, key: Key, manifest: Object) -> None:
        """Apply a manifest.

        Raises:
            DisagfusionError: The API server does not take it, or is away.
        """
        kind, name = kind_of(manifest), manifest["metadata"]["name"]
        if self._cache.child(key, kind, name) is None:
            try:
                await self._apply(key, manifest, stamped(manifest), force=False)
            except AbortedError:
                await self._own(manifest)
            else:
                return
        await self._apply(key, manifest, stamped(manifest), force=True)

    async def _own(self, manifest: Object) -> Object:
        """Return an object that is there, if it belongs to whom the manifest says or to nobody."""
        kind, metadata = kind_of(manifest), manifest["metadata"]
        found = await self._cluster.get(kind, metadata["namespace"], metadata["name"])
        mine = {one["uid"] for one in metadata.get("ownerReferences", ())}
        theirs = {one["uid"] for one in found["metadata"].get("ownerReferences") or ()}
        labels = found["metadata"].get("labels") or {}
        if mine & theirs or labels.get(MANAGED_LABEL) == MANAGER:
            return found
        raise AlreadyExistsError(
            f"it is there already and is somebody else's: give the pipeline another name, or take"
            f" away the {kind.kind}",
            reason="NAME_TAKEN",
        )

    async def _apply(self, key: Key, manifest: Object, written: Object, *, force: bool) -> None:
        kind, name = kind_of(manifest), manifest["metadata"]["name"]
        child = self._cache.child(key, kind, name)
        answer = await self._cluster.apply(written, force=force)
        _log.info(
            "applied",
            pipeline=str(key),
            object=f"{kind.kind}/{name}",
            new=child is None,
        )
        # What still differs is how the server writes it.
        left = frozenset(differences(manifest, answer))
        self._normal[key, kind.kind, name] = (digest(manifest), left)
        self._cache.put(kind, answer)

    def forget(self, key: Key) -> None:
        """Forget what is known about a pipeline's objects."""
        for table in (self._same, self._normal):
            for place in [one for one in table if one[0] == key]:
                del table[place]
