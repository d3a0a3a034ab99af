"""The gateway put together from its parts."""

from __future__ import annotations

import asyncio
import dataclasses
import secrets
import signal
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

from disagfusion import process
from disagfusion.dispatch.dispatcher import Dispatcher
from disagfusion.dispatch.settings import AdmissionLimits, DispatchSettings
from disagfusion.errors import DisagfusionError, FailedPreconditionError
from disagfusion.jobs import retention
from disagfusion.jobs.directory_results import DirectoryResultStore
from disagfusion.jobs.peers import LeaseLostError
from disagfusion.jobs.results import ResultStore
from disagfusion.jobs.sql_engine import is_shared
from disagfusion.jobs.sql_store import SqlJobStore
from disagfusion.rpc.addresses import is_local, is_unix
from disagfusion.rpc.auth import AuthInterceptor, KeyFile, require_keys_unless_local
from disagfusion.rpc.handlers import ServerInterceptor
from disagfusion.rpc.metering import MeteringInterceptor
from disagfusion.rpc.server import RpcServer
from disagfusion.telemetry import logging, metrics, tracing
from disagfusion.v1.fleet_pb2_grpc import add_FleetServiceServicer_to_server
from disagfusion.v1.generation_pb2_grpc import add_GenerationServiceServicer_to_server
from disagfusion_gateway.admission import Admission
from disagfusion_gateway.backlog import FromOtherThreads, by_pool
from disagfusion_gateway.clock import SteadyClock
from disagfusion_gateway.core import Core
from disagfusion_gateway.fetching import ResultFetcher
from disagfusion_gateway.fleet import Fleet
from disagfusion_gateway.fleet_servicer import FleetServicer
from disagfusion_gateway.link import LinkSettings
from disagfusion_gateway.links import WorkerLinks
from disagfusion_gateway.observe import Observer
from disagfusion_gateway.peering import Peering
from disagfusion_gateway.servicer import GenerationServicer, ServiceSettings
from disagfusion_gateway.sessions import Sessions
from disagfusion_gateway.settings import GatewaySettings, WorkerAddress
from disagfusion_gateway.validation import ImageLimits
from disagfusion_gateway.watchers import Watchers

SERVICES = ("disagfusion.v1.GenerationService",)
INTERNAL = ("disagfusion.v1.FleetService",)
# Of a store's 128 characters for a gateway.
_MAX_NAME = 100

_log = logging.get_logger(__name__)


class Gateway:
    """A running gateway, from `start` to `stop`.

    Args:
        settings: How it behaves.

    Attributes:
        address: Where it listens.
        metrics_address: Where its metrics are; empty for nowhere.
        internal_address: Where balancers ask; empty for nowhere.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._stack = AsyncExitStack()
        self._registry = metrics.new_registry("gateway")
        self._incarnation = secrets.token_hex(8)
        self._identity = f"{settings.name[:_MAX_NAME]}/{self._incarnation}"
        self._peering: Peering | None = None
        # By the clock of those who write files.
        self._began = time.time()
        self.address = settings.listen
        self.metrics_address = ""
        self.internal_address = ""

    async def start(self) -> None:
        """Open the stores, take up what was left unfinished, listen, and connect to the workers.

        Raises:
            DisagfusionError: A setting is wrong, an address in use, a store not usable.
        """
        settings = self._settings
        keys = KeyFile(settings.api_keys) if settings.api_keys else None
        if not settings.open_to_all:
            require_keys_unless_local(settings.listen, keys)
        workers = settings.worker_addresses()
        interceptors: list[ServerInterceptor] = [
            MeteringInterceptor(metrics.GrpcMetrics(self._registry))
        ]
        if keys is not None:
            interceptors.insert(0, AuthInterceptor(keys))
        self._server = RpcServer(
            settings.listen,
            SERVICES,
            tls=settings.tls,
            interceptors=interceptors,
            probe_listen=settings.probe_listen,
        )
        try:
            await self._open(workers)
        except BaseException:
            await self._stack.aclose()
            await self._server.stop(0)
            raise

    async def _open(self, workers: Sequence[WorkerAddress]) -> None:
        settings = self._settings
        self._serve_metrics()
        # Closed last: whatever ends below may still have something to store.
        self._results = await self._stack.enter_async_context(self._result_store())
        self._store = self._job_store()
        await self._stack.enter_async_context(self._store)
        peers, shares = self._store.peers, self._store.peers is not None
        # Gateways that share jobs share a clock, so that a deadline is the same for all of them.
        clock = self._clock = SteadyClock(time.time() if peers is None else await peers.now())
        now = clock()
        gateway_metrics = metrics.GatewayMetrics(self._registry, pipeline=settings.pipeline)
        observer = self._observer = Observer(gateway_metrics, settings.pipeline)
        remembered = await self._store.specification(settings.pipeline)
        sessions = self._sessions = Sessions(observer, remembered)
        watchers = Watchers()
        fetcher = ResultFetcher(
            sessions, self._store, self._results, concurrency=settings.fetch_concurrency
        )
        dispatcher = self._dispatcher(workers, now)
        fleet = Fleet(
            self._incarnation,
            lambda: sessions.workers,
            lambda: sessions.known_spec,
            now,
            budget=settings.balance_budget,
        )
        core = self._core = Core(
            dispatcher,
            self._store,
            sessions,
            fetcher,
            watchers,
            observer,
            fleet,
            clock,
            shares=shares,
        )
        if peers is not None:
            self._peering = Peering(
                self._identity,
                peers,
                self._store,
                core,
                sessions,
                watchers,
                lease=settings.lease_seconds,
                count_tenants=settings.tenant_limit > 0,
            )
            self._stack.push_async_callback(self._peering.resign)
        self._stack.push_async_callback(core.aclose)
        self._stack.push_async_callback(fetcher.aclose)
        if self._peering is not None:
            # At once: those who see no beat for a while take this gateway for dead.
            await self._peering.start()
        else:
            await retention.clean_results(self._store, self._results, self._began)
            for job in await self._store.unfinished():
                core.recover(job)
        # Only now: as long as jobs are still read, no work would be a mistake and not a zero.
        gateway_metrics.backlog.follow(
            FromOtherThreads(lambda: by_pool(core.backlog(), settings.pipeline, sessions.workers))
        )
        self._links = WorkerLinks(
            workers,
            self._link_settings(shares),
            sessions,
            core.post,
            resolve_interval=settings.resolve_interval_seconds,
        )
        admission = Admission()
        self._servicer = GenerationServicer(
            self._service_settings(),
            core,
            self._store,
            self._results,
            sessions,
            watchers,
            observer,
            self._peering,
            admission,
            clock,
        )
        add_GenerationServiceServicer_to_server(self._servicer, self._server.grpc)
        await self._serve_internal(FleetServicer(fleet, core.cancel_all, admission, clock))
        self.address = await self._server.start()
        self._stack.push_async_callback(self._server.stop, settings.shutdown_grace_seconds)
        await self._server.set_serving(True)

    def _dispatcher(self, workers: Sequence[WorkerAddress], now: float) -> Dispatcher:
        return Dispatcher(
            DispatchSettings(waiting_per_slot=self._settings.waiting_per_slot),
            now=now,
            expected_workers=[w.name for w in workers if w.name],
        )

    async def _serve_internal(self, servicer: FleetServicer) -> None:
        settings = self._settings
        listen = settings.internal_listen
        if not listen:
            return
        keys = KeyFile(settings.internal_keys) if settings.internal_keys else None
        if not (settings.tls or keys or is_local(listen)):
            raise FailedPreconditionError(
                f"refusing to listen on {listen} with neither TLS nor keys: set "
                "DISAGFUSION_INTERNAL_KEYS or the TLS files",
                reason="TLS_REQUIRED",
            )
        # A unix socket is this user's alone.
        server = RpcServer(
            listen,
            INTERNAL,
            tls=None if is_unix(listen) else settings.tls,
            interceptors=() if keys is None else (AuthInterceptor(keys),),
        )
        add_FleetServiceServicer_to_server(servicer, server.grpc)
        self.internal_address = await server.start()
        self._stack.push_async_callback(server.stop, settings.shutdown_grace_seconds)
        await server.set_serving(True)

    async def run(self) -> None:
        """Work until cancelled, or until something happens after which it cannot go on."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._links.run())
                group.create_task(self._watch_core())
                group.create_task(self._retain())
                group.create_task(self._remember())
                if self._peering is not None:
                    group.create_task(self._peering.run())
                    group.create_task(self._clean())
        except BaseExceptionGroup as group:
            lost = group.subgroup(LeaseLostError)
            if lost is None:
                raise
            raise _first(lost) from None

    async def stop(self) -> None:
        """Admit nothing more, end the watches and streams, and close; jobs stay in the store."""
        await self._server.set_serving(False)
        self._servicer.stop()
        await self._stack.aclose()

    async def _watch_core(self) -> None:
        await asyncio.shield(self._core.failed)

    async def _clean(self) -> None:
        """Remove what gateways that died have left, which takes long where there are many files."""
        try:
            await retention.clean_results(self._store, self._results, self._began, shared=True)
        except DisagfusionError as error:
            _log.warning("leftovers not removed", problem=error.message)

    async def _remember(self) -> None:
        while True:
            text = await self._sessions.described_anew()
            try:
                await self._store.put_specification(self._settings.pipeline, text)
            except DisagfusionError as error:
                # Only a gateway that starts while no worker runs would have needed it.
                _log.warning("specification not kept", problem=error.message)

    async def _retain(self) -> None:
        policy = self._settings.retention
        while True:
            if self._peering is not None and not self._peering.eldest:
                await asyncio.sleep(self._settings.retention_interval_seconds)
                continue
            try:
                report = await retention.apply(self._store, self._results, policy, self._clock())
                stored = await self._store.result_bytes()
            except DisagfusionError as error:
                _log.warning("retention postponed", problem=error.message)
            else:
                self._observer.results_stored(stored)
                if report.jobs or report.results or report.events:
                    _log.info("retention", **dataclasses.asdict(report))
            await asyncio.sleep(self._settings.retention_interval_seconds)

    def _serve_metrics(self) -> None:
        if not self._settings.metrics_listen:
            return
        server = process.serve_metrics(self._settings.metrics_listen, self._registry)
        self.metrics_address = server.address
        self._stack.callback(server.close)

    def _job_store(self) -> SqlJobStore:
        settings = self._settings
        return SqlJobStore(
            settings.database,
            owner=self._identity if is_shared(settings.database) else "",
            pipeline=settings.pipeline,
            synchronous=settings.database_synchronous,
            min_free_bytes=settings.disk_reserve_bytes,
        )

    def _result_store(self) -> ResultStore:
        return DirectoryResultStore(self._settings.results)

    def _link_settings(self, shares: bool) -> LinkSettings:
        settings = self._settings
        return LinkSettings(
            # One that starts again under its name is another: what it left is to be taken over.
            gateway=self._identity if shares else settings.name,
            incarnation=self._incarnation,
            shares=shares,
            pipeline=settings.pipeline,
            tls=settings.tls,
            ping_interval=settings.ping_interval_seconds,
            ping_deadline=settings.ping_deadline_seconds,
            grace=settings.reconnect_grace_seconds,
        )

    def _service_settings(self) -> ServiceSettings:
        settings = self._settings
        return ServiceSettings(
            pipeline=settings.pipeline,
            admission=AdmissionLimits(settings.queue_limit, settings.tenant_limit),
            images=ImageLimits(
                settings.max_images, settings.max_image_bytes, settings.max_image_pixels
            ),
            max_timeout=settings.max_timeout_seconds,
            spec_wait=settings.spec_wait_seconds,
            disk_reserve=settings.disk_reserve_bytes,
        )


async def serve(settings: GatewaySettings) -> None:
    """Run a gateway until SIGTERM or SIGINT.

    Raises:
        DisagfusionError: It cannot start.
    """
    gateway = Gateway(settings)
    await gateway.start()
    _log.info("gateway listens", address=gateway.address, metrics=gateway.metrics_address)
    if settings.ready_file is not None:
        process.write_ready(
            settings.ready_file, address=gateway.address, metrics_address=gateway.metrics_address
        )
    work = asyncio.create_task(gateway.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    try:
        await work
    except asyncio.CancelledError:
        _log.info("gateway stops")
    finally:
        await gateway.stop()


def _first(group: BaseExceptionGroup[LeaseLostError]) -> LeaseLostError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


def main() -> None:
    """Run from the command line, with settings from the environment."""
    try:
        with process.explained("disagfusion-gateway"):
            settings = GatewaySettings()
            logging.configure(settings.log_format, settings.log_level, component="gateway")
            tracing.configure("gateway")
            asyncio.run(serve(settings))
    finally:
        tracing.shutdown()
