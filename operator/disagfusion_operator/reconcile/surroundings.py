"""What a pipeline's objects depend on and is not in its specification: profile and installation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from disagfusion.errors import NotFoundError
from disagfusion.scheduling.profile import Profile
from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.desired.inputs import Release
from disagfusion_operator.k8s.kinds import CONFIG_MAP
from disagfusion_operator.k8s.port import Cluster
from disagfusion_operator.scaling.profiles import read_profile
from disagfusion_operator.scaling.view import Key
from disagfusion_operator.settings import OperatorSettings

_KEPT_SECONDS = 60.0


def release_of(settings: OperatorSettings, *, pod_monitors: bool) -> Release:
    """Return what the installation decides."""
    return Release(
        images=settings.images,
        pull_policy=settings.image_pull_policy,
        pull_secrets=settings.pull_secrets,
        namespace=settings.namespace,
        prometheus_namespace=settings.prometheus_namespace,
        client_namespaces=settings.client_namespaces,
        network_policies=settings.network_policies,
        pod_monitors=pod_monitors,
    )


@dataclass(slots=True)
class _Known:
    source: Any
    profile: Profile
    read: float


class Profiles:
    """Reads profiles, from the specification or from a ConfigMap.

    Args:
        cluster: Where ConfigMaps are.
        clock: Seconds that only grow.
    """

    def __init__(self, cluster: Cluster, clock: Callable[[], float]) -> None:
        self._cluster = cluster
        self._clock = clock
        self._known: dict[Key, _Known] = {}

    async def of(self, key: Key, spec: Spec) -> Profile | None:
        """Return a pipeline's profile; None where it has none.

        Raises:
            InvalidArgumentError: Naming what is wrong in it.
            NotFoundError: The ConfigMap or its key is not there.
            DisagfusionError: The API server does not give it.
        """
        given = spec.scaling.profile
        if given is None:
            self._known.pop(key, None)
            return None
        known = self._known.get(key)
        if given.inline is not None:
            if known is None or known.source != given.inline:
                known = _Known(given.inline, read_profile(given.inline), 0.0)
                self._known[key] = known
            return known.profile
        assert given.config_map is not None
        source = (given.config_map.name, given.config_map.key)
        fresh = known is not None and self._clock() - known.read < _KEPT_SECONDS
        if known is not None and fresh and known.source[:2] == source:
            return known.profile
        found = await self._cluster.get(CONFIG_MAP, key.namespace, source[0])
        data: Mapping[str, str] = found.get("data") or {}
        if source[1] not in data:
            raise NotFoundError(f"the ConfigMap {source[0]} has no key {source[1]}")
        text = data[source[1]]
        if known is None or known.source != (*source, text):
            where = f"ConfigMap {source[0]}: {source[1]}"
            known = _Known((*source, text), read_profile(text, where), 0.0)
            self._known[key] = known
        known.read = self._clock()
        return known.profile

    def last(self, key: Key) -> Profile | None:
        """Return the profile that a pipeline had last, as far as this process has read it."""
        known = self._known.get(key)
        return None if known is None else known.profile

    def forget(self, key: Key) -> None:
        """Forget a pipeline."""
        self._known.pop(key, None)
