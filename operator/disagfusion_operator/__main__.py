"""The operator's process: stands for election, and acts while it leads."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import signal
import sys
import time
from collections.abc import Coroutine, Sequence
from typing import Any

from disagfusion import process
from disagfusion.scheduling.decision import Reason
from disagfusion.telemetry import logging, metrics
from disagfusion.telemetry.balanced import BalancedPipelines
from disagfusion.telemetry.operator_metrics import OperatorMetrics
from disagfusion_operator.handlers import watch
from disagfusion_operator.health import HealthServer, Vitals
from disagfusion_operator.k8s.client import KubernetesCluster
from disagfusion_operator.k8s.lease import Election, LeaseTimes
from disagfusion_operator.k8s.port import Cluster, Kind
from disagfusion_operator.reconcile.gateways import GrpcGateways
from disagfusion_operator.runtime import Runtime
from disagfusion_operator.settings import OperatorSettings

_BEAT_SECONDS = 1.0

_log = logging.get_logger(__name__)


async def serve(settings: OperatorSettings) -> int:
    """Run until SIGTERM, SIGINT or the loss of leadership; return the process's status.

    Raises:
        DisagfusionError: It cannot start.
    """
    registry = metrics.new_registry("operator")
    measured = OperatorMetrics(registry)
    vitals = Vitals(time.monotonic, settings.stalled_seconds)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(HealthServer(settings.health_listen, vitals).close)
        if settings.metrics_listen:
            stack.callback(process.serve_metrics(settings.metrics_listen, registry).close)
        cluster = await KubernetesCluster.connect(measured.call)
        stack.push_async_callback(cluster.aclose)
        balanced = BalancedPipelines(registry, [reason.name.lower() for reason in Reason])
        runtime = Runtime(cluster, GrpcGateways(), settings, measured.look, balanced)
        vitals.follow(lambda: runtime.controller.overdue() if runtime.controller else 0.0)
        measured.follow(lambda: len(runtime.cache.pipelines()))
        stopped = asyncio.Event()
        office = Office(settings, cluster, runtime, vitals, measured, stopped)
        office.listen()
        tasks = [
            asyncio.create_task(_beat(vitals)),
            asyncio.create_task(office.hold()),
            asyncio.create_task(stopped.wait()),
        ]
        done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        for task in done:
            if (problem := task.exception()) is not None:
                raise problem
        return 0 if stopped.is_set() else 1


class Office:
    """What one process does from its start to its end: waits, stands for election, acts.

    Args:
        settings: The operator's.
        cluster: The API server.
        runtime: Acts.
        vitals: Told how far it is.
        measured: The same.
        stopped: Set by a signal.
    """

    def __init__(
        self,
        settings: OperatorSettings,
        cluster: Cluster,
        runtime: Runtime,
        vitals: Vitals,
        measured: OperatorMetrics,
        stopped: asyncio.Event,
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._runtime = runtime
        self._vitals = vitals
        self._measured = measured
        self._stopped = stopped

    def listen(self) -> None:
        """Have signals end the process."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopped.set)

    async def hold(self) -> None:
        """Win the election and act until the office is lost."""
        settings = self._settings
        kinds = await self._runtime.known_kinds()
        self._vitals.ready = True
        if not settings.leader_election:
            await self._lead(kinds, asyncio.Event().wait())
            return
        election = Election(
            self._cluster,
            settings.namespace,
            settings.lease_name,
            f"{settings.name}_{secrets.token_hex(4)}",
            LeaseTimes(
                settings.lease_seconds, settings.lease_renew_seconds, settings.lease_retry_seconds
            ),
            time.monotonic,
        )
        try:
            await election.win()
            await self._lead(kinds, election.keep())
        finally:
            # Nothing acts any more: another may begin at once.
            await asyncio.shield(election.release())

    async def _lead(self, kinds: Sequence[Kind], office: Coroutine[Any, Any, Any]) -> None:
        self._vitals.leads = True
        self._measured.leads(True)
        stop, watching = asyncio.Event(), asyncio.Event()
        namespaces = self._settings.namespaces
        parts = [
            asyncio.create_task(office),
            asyncio.create_task(watch(self._runtime.cache, kinds, namespaces, stop, watching)),
            asyncio.create_task(self._runtime.run(kinds)),
            asyncio.create_task(self._listen_again(watching)),
        ]
        try:
            done, _ = await asyncio.wait(parts[:-1], return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                if not part.cancelled() and (error := part.exception()) is not None:
                    raise error
        finally:
            self._vitals.leads = False
            self._measured.leads(False)
            stop.set()
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)

    async def _listen_again(self, watching: asyncio.Event) -> None:
        # kopf takes the signals for itself when it starts.
        await watching.wait()
        self.listen()


async def _beat(vitals: Vitals) -> None:
    while True:
        vitals.beat()
        await asyncio.sleep(_BEAT_SECONDS)


def main() -> None:
    """Run from the command line, with settings from the environment."""
    with process.explained("disagfusion-operator", "DISAGFUSION_OPERATOR_"):
        settings = OperatorSettings()
        logging.configure(settings.log_format, settings.log_level, component="operator")
        sys.exit(asyncio.run(serve(settings)))


if __name__ == "__main__":
    main()
