"""Writing what people read: status, only where it has news, and events of transitions."""

from __future__ import annotations

from collections.abc import Callable

from disagfusion.errors import DisagfusionError, NotFoundError
from disagfusion.telemetry.logging import get_logger
from disagfusion_operator.api.reading import Metadata
from disagfusion_operator.api.status import Condition, Status
from disagfusion_operator.desired.names import FINALIZER
from disagfusion_operator.k8s.kinds import PIPELINE
from disagfusion_operator.k8s.port import Cluster, Object
from disagfusion_operator.k8s.states import text_of
from disagfusion_operator.reconcile import status as statuses
from disagfusion_operator.reconcile.cache import Cache
from disagfusion_operator.scaling.view import Key

_BAD_WHEN_TRUE = (Condition.DEGRADED, Condition.CONFLICT)
_BAD_WHEN_FALSE = (Condition.READY, Condition.METRICS_AVAILABLE)

_log = get_logger(__name__)


class Writer:
    """The only one who writes to a pipeline itself.

    Args:
        cluster: Where it is.
        cache: Learns at once what was written.
        now: Unix seconds.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        now: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._cluster = cluster
        self._cache = cache
        self._now = now
        self._clock = clock
        self._written: dict[Key, float] = {}

    async def write(self, resource: Object, account: statuses.Account) -> None:
        """Write the status if it has news, and record what has changed.

        Raises:
            DisagfusionError: The API server does not take it.
        """
        before = resource.get("status") or {}
        status = statuses.build(account, before, text_of(self._now()))
        await self._put(resource, status)
        if account.report is not None:
            for one in account.report.happenings:
                await self._record(
                    resource,
                    warning=one.warning,
                    reason=one.reason,
                    message=one.message,
                    action=one.action,
                )

    async def invalid(self, resource: Object, message: str) -> None:
        """Write that a pipeline cannot be understood.

        Raises:
            DisagfusionError: The API server does not take it.
        """
        generation = resource["metadata"].get("generation", 0)
        before = resource.get("status") or {}
        await self._put(
            resource, statuses.invalid(generation, message, before, text_of(self._now()))
        )

    async def hold(self, metadata: Metadata) -> None:
        """Have a pipeline wait for the operator before it goes.

        Raises:
            DisagfusionError: The API server does not take it.
        """
        if FINALIZER in metadata.finalizers:
            return
        answer = await self._cluster.apply(
            {
                "apiVersion": PIPELINE.api_version,
                "kind": PIPELINE.kind,
                "metadata": {
                    "namespace": metadata.namespace,
                    "name": metadata.name,
                    "uid": metadata.uid,
                    "finalizers": [FINALIZER],
                },
            }
        )
        self._cache.put(PIPELINE, answer)

    async def let_go(self, metadata: Metadata) -> None:
        """Have a pipeline wait for the operator no more.

        Raises:
            DisagfusionError: The API server does not take it.
        """
        left = [one for one in metadata.finalizers if one != FINALIZER]
        if len(left) == len(metadata.finalizers):
            return
        try:
            await self._cluster.set_finalizers(
                *(PIPELINE, metadata.namespace, metadata.name, left),
                version=metadata.resource_version,
            )
        except NotFoundError:
            return  # it is gone

    def forget(self, key: Key) -> None:
        """Forget a pipeline."""
        self._written.pop(key, None)

    async def _put(self, resource: Object, status: Status) -> None:
        metadata = resource["metadata"]
        key = Key(metadata["namespace"], metadata["name"])
        before = resource.get("status") or {}
        manifest = statuses.manifest_of(key.namespace, key.name, metadata["uid"], status)
        since = self._clock() - self._written.get(key, -1e9)
        if not statuses.is_news(manifest["status"], before, since):
            return
        try:
            answer = await self._cluster.apply_status(manifest)
        except NotFoundError:
            return  # it went meanwhile
        self._written[key] = self._clock()
        self._cache.put(PIPELINE, answer)
        for one in statuses.transitions(status, before):
            bad = (one.status == "True" and one.type in _BAD_WHEN_TRUE) or (
                one.status == "False" and one.type in _BAD_WHEN_FALSE
            )
            await self._record(
                resource,
                warning=bad,
                reason=one.reason,
                message=f"{one.type} is {one.status}: {one.message}".rstrip(": "),
                action="Reconcile",
            )

    async def _record(
        self, resource: Object, *, warning: bool, reason: str, message: str, action: str
    ) -> None:
        try:
            await self._cluster.record(
                resource, warning=warning, reason=reason, message=message, action=action
            )
        except DisagfusionError as error:
            # An event that is lost keeps nothing from being done.
            _log.warning("event not recorded", reason=reason, problem=error.message)
