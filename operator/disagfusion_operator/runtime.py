"""The operator while it leads: lists, watches, looks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from disagfusion.errors import DisagfusionError, NotFoundError, PermissionDeniedError
from disagfusion.telemetry.balanced import BalancedPipelines
from disagfusion.telemetry.logging import get_logger
from disagfusion_operator.desired.names import PIPELINE_LABEL
from disagfusion_operator.k8s.kinds import (
    AUTOSCALER,
    NODE,
    PIPELINE,
    POD_MONITOR,
    SCALED_OBJECT,
)
from disagfusion_operator.k8s.port import Cluster, Kind
from disagfusion_operator.reconcile.cache import Cache, watched_kinds
from disagfusion_operator.reconcile.gateways import Gateways
from disagfusion_operator.reconcile.queue import Controller
from disagfusion_operator.reconcile.reconciler import Reconciler, Settings
from disagfusion_operator.reconcile.surroundings import release_of
from disagfusion_operator.scaling.controller import Scaling
from disagfusion_operator.settings import OperatorSettings

_RETRY_SECONDS = 2.0
_AGAIN_SECONDS = 10.0
"""From the first list to the second: what goes after the first, and before the watches that begin
with it have listed what they follow, nobody tells of."""
_AGAIN = 2.0
"""Times the seconds that the first list took, where that is longer."""
_OPTIONAL = (POD_MONITOR, SCALED_OBJECT, AUTOSCALER, NODE)
"""Kinds that may not be there, or that it may not be allowed to see."""

_log = get_logger(__name__)


class Runtime:
    """One term of office.

    Args:
        cluster: The API server.
        gateways: How gateways are talked to.
        settings: The operator's.
        note: Told of every look: how long it took, and whether it failed.
        balanced: Where the balancing of pipelines is exported; None: nowhere.
    """

    def __init__(
        self,
        cluster: Cluster,
        gateways: Gateways,
        settings: OperatorSettings,
        note: Callable[[float, bool], None],
        balanced: BalancedPipelines | None = None,
    ) -> None:
        self._cluster = cluster
        self._gateways = gateways
        self._settings = settings
        self._woken: Callable[..., None] = lambda key: None
        self.cache = Cache(lambda key: self._woken(key))
        self._note = note
        self._balanced = balanced
        self.controller: Controller | None = None

    async def known_kinds(self) -> list[Kind]:
        """Return the kinds that can be listed; waits for the DiffusionPipeline's definition."""
        kinds = [PIPELINE, *watched_kinds(), NODE, AUTOSCALER, SCALED_OBJECT]
        found = []
        for kind in kinds:
            if await self._can_list(kind):
                found.append(kind)
        return found

    async def run(self, kinds: Sequence[Kind]) -> None:
        """List everything, then look at pipelines until cancelled.

        Args:
            kinds: Which are followed.
        """
        settings = self._settings
        begun = time.monotonic()
        await self.fill(kinds)
        again = max(_AGAIN_SECONDS, _AGAIN * (time.monotonic() - begun))
        release = release_of(
            settings,
            pod_monitors=settings.pod_monitors == "auto" and POD_MONITOR in kinds,
        )
        how = Settings(settings.resync_seconds, settings.prometheus_url, settings.gateway_port)
        async with Scaling(self._cluster, metrics=self._balanced) as scaling:
            reconciler = Reconciler(
                self._cluster,
                self.cache,
                self._gateways,
                scaling,
                release,
                how,
                now=time.time,
                clock=time.monotonic,
            )
            controller = self.controller = Controller(
                reconciler.look,
                workers=settings.workers,
                clock=time.monotonic,
                note=self._note,
            )
            self._woken = controller.wake
            for key in self.cache.pipelines():
                controller.wake(key)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(controller.run())
                    group.create_task(self._refill(kinds, again))
            finally:
                self._woken = lambda key: None
                reconciler.close()

    async def fill(self, kinds: Sequence[Kind]) -> None:
        """List everything into the cache; what is refused in one namespace keeps no other away.

        Raises:
            DisagfusionError: The API server does not answer, or refuses.
        """
        refused: DisagfusionError | None = None
        for kind in kinds:
            labels = {PIPELINE_LABEL: ""} if kind in watched_kinds() else None
            for namespace in self._namespaces(kind):
                before = self.cache.names(kind, namespace)
                found = self._cluster.list(kind, namespace, labels)
                try:
                    await self.cache.replace(kind, before, found)
                except (NotFoundError, PermissionDeniedError) as error:
                    refused = refused or error
        if refused is not None:
            raise refused

    async def _refill(self, kinds: Sequence[Kind], seconds: float) -> None:
        """List again after some seconds, and again: a watch may have missed that something went."""
        while True:
            await asyncio.sleep(min(seconds, self._settings.list_seconds))
            seconds = self._settings.list_seconds
            try:
                await self.fill(kinds)
            except DisagfusionError as error:
                _log.warning("not listed", problem=error.message)

    async def _can_list(self, kind: Kind) -> bool:
        told = ""
        while True:
            try:
                for namespace in self._namespaces(kind):
                    async for _ in self._cluster.list(
                        kind, namespace, {"disagfusion.dev/none": ""}
                    ):
                        pass
            except (NotFoundError, PermissionDeniedError) as error:
                if kind in _OPTIONAL:
                    _log.info("not followed", kind=kind.kind, reason=error.message)
                    return False
                problem = error.message
            except DisagfusionError as error:
                problem = error.message
            else:
                return True
            if problem != told:
                told = problem
                _log.warning("waits for the API server", kind=kind.kind, problem=problem)
            await asyncio.sleep(_RETRY_SECONDS)

    def _namespaces(self, kind: Kind) -> Sequence[str]:
        return (self._settings.namespaces or ("",)) if kind.namespaced else ("",)
