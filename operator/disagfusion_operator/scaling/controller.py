"""Balancing of all pipelines of the cluster."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from disagfusion_operator.k8s.port import Cluster
from disagfusion_operator.scaling.report import PlaceReport, Report
from disagfusion_operator.scaling.view import ClusterView, Key, PipelineView


class Scaling:
    """Balances all pipelines; the only one that writes replicas of the specification's places.

    The first replicas come from here as well: Deployments are made with none. Deployments of places
    that the specification no longer has are whoever's who takes them away.

    Args:
        cluster: Where replicas are written.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def step(self, pipeline: PipelineView, cluster: ClusterView, now: float) -> Report:
        """Go on with what was begun, and decide anew where a period is over.

        To be called at once when pods, Deployments or the specification change, and after
        `Report.again_after` in any case. Steps of one pipeline are not to overlap. Takes
        milliseconds, besides the calls that it makes to change something: load is observed in the
        background.

        Args:
            pipeline: As it is now.
            cluster: The same.
            now: Unix seconds.
        """
        places = {place: PlaceReport() for place in pipeline.deployments}
        return Report(places)

    def forget(self, key: Key) -> None:
        """Give up everything about a pipeline that is gone or is being deleted."""

    async def aclose(self) -> None:
        """End what goes on in the background."""

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
