"""Balancing of all pipelines of the cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

from disagfusion.telemetry.balanced import BalancedPipelines
from disagfusion_operator.desired.names import served_name
from disagfusion_operator.k8s.port import Cluster, Object
from disagfusion_operator.scaling.capacity import holdings
from disagfusion_operator.scaling.claims import leaving
from disagfusion_operator.scaling.exporting import figures
from disagfusion_operator.scaling.gateways import Gateways, GrpcGateways
from disagfusion_operator.scaling.ledger import Ledger
from disagfusion_operator.scaling.load import Load
from disagfusion_operator.scaling.mind import Senses
from disagfusion_operator.scaling.report import Report
from disagfusion_operator.scaling.scaler import Scaler
from disagfusion_operator.scaling.view import ClusterView, Key, PipelineView
from disagfusion_operator.scaling.workers import GrpcWorkers, Workers


class Scaling:
    """Balances all pipelines; the only one that writes replicas of the specification's places.

    The first replicas come from here as well: Deployments are made with none. Deployments of places
    that the specification no longer has are whoever's who takes them away.

    Args:
        cluster: Where replicas are written.
        load: What Prometheus says; asked over HTTP by default.
        gateways: Asks gateways; by gRPC by default.
        workers: Tells workers to change their stage; by gRPC by default.
        metrics: Where balancing is exported; None: nowhere.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        load: Load | None = None,
        gateways: Gateways | None = None,
        workers: Workers | None = None,
        metrics: BalancedPipelines | None = None,
    ) -> None:
        self._metrics = metrics
        self._cluster = cluster
        self._workers = workers or GrpcWorkers()
        self._ledger = Ledger()
        # One thread: a decision holds the interpreter, several would only delay everything else.
        self._threads = ThreadPoolExecutor(1, "disagfusion-decide")
        self._load = load or Load()
        self._senses = Senses(
            self._load, gateways or GrpcGateways(), self._threads, asyncio.Semaphore(1)
        )
        self._scalers: dict[Key, Scaler] = {}
        self._names: dict[Key, tuple[str, str]] = {}
        self._ending: set[asyncio.Task[None]] = set()

    async def step(self, pipeline: PipelineView, cluster: ClusterView, now: float) -> Report:
        """Go on with what was begun, and decide anew where a period is over.

        To be called at once when pods, Deployments or the specification change, and after
        `Report.again_after` in any case. Steps of one pipeline are not to overlap. Load is observed
        in the background and decisions are computed in a thread, so that a step takes milliseconds
        of the event loop, besides the calls that it makes to change something.

        Args:
            pipeline: As it is now.
            cluster: The same.
            now: Unix seconds.

        Returns:
            What there is to tell; without places as long as it is not known what the pipeline may
            have. An API server that does not answer is told as a finding, and tried again.
        """
        scaler = self._scalers.get(pipeline.key)
        if scaler is not None and scaler.uid != pipeline.uid:
            self.forget(pipeline.key)
            scaler = None
        if scaler is None:
            scaler = Scaler(
                *(pipeline, self._cluster, self._ledger, self._senses, self._workers), now
            )
            self._scalers[pipeline.key] = scaler
        await self._ledger.refresh(cluster, now, self._threads)
        report = await scaler.step(pipeline, cluster, now)
        self._export(pipeline, scaler, report)
        return report

    def _export(self, pipeline: PipelineView, scaler: Scaler, report: Report) -> None:
        if self._metrics is None:
            return
        name = (pipeline.key.namespace, served_name(pipeline.key.name, pipeline.spec))
        if (before := self._names.get(pipeline.key, name)) != name:
            self._metrics.forget(*before)
        self._names[pipeline.key] = name
        for decision in scaler.mind.news():
            self._metrics.decided(*name, decision.reason.name.lower())
        scaling = pipeline.spec.scaling
        held = scaling.paused or scaling.mode == "Off" or bool(pipeline.hold)
        self._metrics.show(*name, figures(report, scaler.mind.summary(), held=held))

    def leave(self, pipeline: PipelineView, now: float) -> None:
        """Take note of a pipeline that is being deleted: until its pods are gone, they hold room.

        Args:
            pipeline: As it is now.
            now: Unix seconds.
        """
        self._end(pipeline.key)
        self._ledger.enter(leaving(pipeline), now)

    def hold(self, key: Key, pods: Iterable[Object]) -> None:
        """Take note of what pods hold whose pipeline cannot be looked after now: others lack it.

        Args:
            key: Which pipeline; nothing happens where it has been looked after before.
            pods: That there are.
        """
        self._ledger.hold(key, holdings(pods))

    def forget(self, key: Key) -> None:
        """Give up everything about a pipeline that is gone."""
        self._end(key)
        self._ledger.forget(key)

    def _end(self, key: Key) -> None:
        scaler = self._scalers.pop(key, None)
        self._load.forget(key)
        if self._metrics is not None and key in self._names:
            self._metrics.forget(*self._names.pop(key))
        if scaler is not None:
            ending = asyncio.create_task(scaler.mind.aclose(), name=f"forget {key}")
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    async def aclose(self) -> None:
        """End what goes on in the background."""
        for key in list(self._scalers):
            self.forget(key)
        await asyncio.gather(*self._ending)
        await self._load.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def __aenter__(self) -> Self:
        """Return itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        await self.aclose()
