"""The watches, by kopf: every event goes into the cache, which wakes who it is about.

kopf is used for watching alone. Its own handlers of changes write annotations and finalizers of
their own, and are told what changed; a reconcile wants to know what there is.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import kopf

from disagfusion_operator.desired.names import PIPELINE_LABEL
from disagfusion_operator.k8s.kinds import NODE, PIPELINE
from disagfusion_operator.k8s.port import Kind
from disagfusion_operator.reconcile.cache import Cache, watched_kinds

_SERVER_SECONDS = 240
_CLIENT_SECONDS = 250
_REQUEST_SECONDS = 20
_PAGE = 50
_IDLE_SECONDS = 0.2
"""kopf holds a page of each kind while it is listed, and each object for so long after its event.
A hundred pipelines have 2,700 objects: a page of 500 and five seconds, as is usual, are 100 MiB."""


class _NothingRemembered(kopf.DiffBaseStorage):
    """kopf compares each object with what it was; nobody here asks how it has changed."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        pass


def registry(cache: Cache, kinds: Sequence[Kind]) -> kopf.OperatorRegistry:
    """Return handlers that fill a cache.

    Args:
        cache: What is filled.
        kinds: Which the API server knows.
    """
    found = kopf.OperatorRegistry()
    kopf.on.login(registry=found)(_login)
    for kind in kinds:
        group, _, version = kind.api_version.rpartition("/")
        kopf.on.event(group, version, kind.plural, registry=found, id=kind.kind)(
            _follower(cache, kind)
        )
    return found


def settings() -> kopf.OperatorSettings:
    """Return how kopf watches."""
    found = kopf.OperatorSettings()
    found.posting.enabled = False
    # What it finds out at its start is enough; it need not be allowed to list definitions.
    found.scanning.disabled = True
    found.peering.standalone = True
    found.persistence.finalizer = "disagfusion.dev/kopf"
    found.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix="disagfusion.dev")
    found.persistence.diffbase_storage = _NothingRemembered()
    found.networking.request_timeout = _REQUEST_SECONDS
    found.networking.connect_timeout = 5
    found.watching.server_timeout = _SERVER_SECONDS
    found.watching.client_timeout = _CLIENT_SECONDS
    found.watching.chunk_size = _PAGE
    found.queueing.idle_timeout = _IDLE_SECONDS
    found.process.ultimate_exiting_timeout = None
    for kind in watched_kinds():
        group, _, version = kind.api_version.rpartition("/")
        found.watching.label_selectors[group, version, kind.plural] = PIPELINE_LABEL
    return found


async def watch(
    cache: Cache,
    kinds: Sequence[Kind],
    namespaces: Sequence[str],
    stop: asyncio.Event,
    ready: asyncio.Event,
) -> None:
    """Watch until told to stop.

    Args:
        cache: What is filled.
        kinds: Which the API server knows.
        namespaces: Whose objects; all where empty.
        stop: Ends it.
        ready: Is set once it watches.
    """
    # kopf says on the standard library's loggers what is of interest to its users.
    logging.getLogger("kopf").setLevel(logging.WARNING)
    await kopf.operator(
        registry=registry(cache, kinds),
        settings=settings(),
        standalone=True,
        clusterwide=not namespaces,
        namespaces=list(namespaces),
        stop_flag=stop,
        ready_flag=ready,
    )


def _login(**kwargs: Any) -> kopf.ConnectionInfo | None:
    return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)


def _follower(cache: Cache, kind: Kind) -> Any:
    # Cluster-wide objects beside pipelines and what belongs to them: nodes.
    assert kind in (PIPELINE, NODE) or kind.namespaced

    async def follow(event: Any, **_: Any) -> None:
        found = dict(event["object"])
        found["metadata"] = dict(found["metadata"])
        if event["type"] == "DELETED":
            cache.drop(kind, found)
        else:
            cache.put(kind, found)

    return follow
