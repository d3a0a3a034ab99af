"""A stage service put together from its parts."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

from disagfusion import termination
from disagfusion.errors import FailedPreconditionError
from disagfusion.pipeline.stages import Stage
from disagfusion.process import serve_metrics
from disagfusion.rpc.metering import MeteringInterceptor
from disagfusion.rpc.server import RpcServer
from disagfusion.rpc.tls import RenewedContext
from disagfusion.stage.config import EngineConfig, engine_environment
from disagfusion.stage.front import Front
from disagfusion.stage.launcher import EngineLauncher, ForkServerLauncher, SubprocessLauncher
from disagfusion.stage.limits import check_arena
from disagfusion.stage.link import EngineLink
from disagfusion.stage.machine import MachineSettings, StageMachine
from disagfusion.stage.memory import SharedMemory
from disagfusion.stage.meter import StageMeter
from disagfusion.stage.numbers import ENGINES, stage_number
from disagfusion.stage.servicer import StageServicer
from disagfusion.stage.settings import StageSettings
from disagfusion.stage.startup import Startup
from disagfusion.telemetry import metrics
from disagfusion.transport import TransportSettings, create
from disagfusion.transport.api import Transport, TransportError
from disagfusion.transport.settings import Observer
from disagfusion.v1 import stage_pb2
from disagfusion.v1.stage_pb2_grpc import add_StageServiceServicer_to_server
from disagfusion.weights.cache import hold

SERVICE = "disagfusion.v1.StageService"
_ACCOUNT_SECONDS = 1.0


class StageService:
    """A running stage service, from `start` to `stop`.

    Args:
        stage: Which stage.
        engine: The class that computes it, as "module:Class".
        settings: How it behaves.

    Attributes:
        address: Where it listens.
        metrics_address: Where its metrics are; empty for nowhere.
        probe_address: Where it answers probes without TLS; empty for nowhere.
        front: The front, once started.
    """

    front: Front

    def __init__(self, stage: Stage, engine: str, settings: StageSettings) -> None:
        self._stage = stage
        self._settings = settings
        self._engine = engine
        self._options = settings.load_options()
        self._stack = AsyncExitStack()
        self._registry = metrics.new_registry(stage.value)
        self._incarnation = secrets.token_hex(16)
        self._background: set[asyncio.Task[None]] = set()
        self.address = settings.listen
        self.metrics_address = ""
        self.probe_address = ""

    async def start(self) -> None:
        """Listen for gRPC and tensors, and begin to start the engine.

        Raises:
            DisagfusionError: A setting is wrong, or an address cannot be used.
        """
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise

    async def _start(self) -> None:
        settings = self._settings
        # Checks the address and the certificates before anything is opened.
        self._server = RpcServer(
            settings.listen,
            (SERVICE,),
            tls=settings.tls,
            interceptors=(MeteringInterceptor(metrics.GrpcMetrics(self._registry)),),
            probe_listen=settings.probe_listen,
        )
        check_arena(settings.arena_bytes)
        self._stack.callback(hold(settings.model))
        self._serve_metrics()
        memory = SharedMemory.create(settings.arena_bytes)
        self._stack.callback(memory.close)
        now = time.monotonic()
        machine = self._machine(now)
        meter = StageMeter(
            self._registry,
            machine,
            pipeline=settings.pipeline,
            stage=self._stage.value,
            pool=settings.pool,
            now=now,
        )
        self._startup = Startup(meter.startup, settings.weights_report)
        self.front = Front(
            machine,
            stage=self._stage,
            memory=memory,
            held_at=settings.slots * settings.slot_bytes,
            incarnation=self._incarnation,
            send_seconds=settings.send_seconds,
            load_ahead=self._loads_ahead(),
            on_state=self._state_changed,
        )
        transport = await self._transport(meter)
        link = EngineLink(
            self._launcher(),
            self.engine_config(self._stage),
            memory,
            self.front,
            silence_seconds=settings.engine_silence_seconds,
        )
        self._stack.push_async_callback(link.aclose)
        address = transport.address
        machine.set_addresses(
            stage_pb2.PeerAddress(
                backend=address.backend, incarnation=address.incarnation, data=address.data
            ),
            self.metrics_address,
        )
        self.front.open(link, transport, meter)
        self._stack.push_async_callback(self.front.aclose)
        add_StageServiceServicer_to_server(
            StageServicer(self.front, self.engine_config), self._server.grpc
        )
        self.address = await self._server.start()
        self.probe_address = self._server.probe_address
        self._stack.push_async_callback(self._server.stop, 1.0)
        self._startup.reached("listening")
        self._spawn(self._account(meter))

    async def stop(self) -> None:
        """End everything at once; `drain` comes first where there is time."""
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.front.aclose()
        await self._stack.aclose()

    async def drain(self) -> None:
        """Take no new work, finish or hand back what is there, wait for releases."""
        await self._server.set_serving(False)
        self.front.drain()
        await self.front.drained.wait()

    def _machine(self, now: float) -> StageMachine:
        settings, stage = self._settings, self._stage
        worker = stage_pb2.Worker(
            name=settings.name,
            incarnation=self._incarnation,
            stages=[stage_number(stage)],
            pipeline=settings.pipeline,
            pool=settings.pool,
            device=settings.device,
            threads=settings.threads,
            front_pid=os.getpid(),
            send_slots=settings.send_slots,
        )
        machine_settings = MachineSettings(
            stage=stage_number(stage),
            port=stage.value if stage.previous else "",
            slots=settings.slots,
            slot_bytes=settings.slot_bytes,
            held_bytes=settings.held_bytes,
            held_seconds=settings.held_seconds,
            input_seconds=settings.input_seconds,
            drain_seconds=settings.drain_seconds,
            synchronous=settings.handover == "sync",
            version_tag=settings.version_tag,
        )
        return StageMachine(machine_settings, worker, new_id=lambda: secrets.token_hex(16), now=now)

    def engine_config(self, stage: Stage) -> EngineConfig:
        """Return what an engine is told.

        Args:
            stage: Its own, or one that the worker is to take.

        Raises:
            DisagfusionError: The worker cannot have this stage.
        """
        settings = self._settings
        own = stage is self._stage
        threads = settings.stage_threads.of(stage) if settings.stage_threads else None
        return EngineConfig(
            stage=stage,
            engine=self._engine if own else ENGINES[stage],
            model=settings.model,
            options=self._options.model_copy(update={"threads": threads} if threads else {}),
            prompt_cache_bytes=settings.prompt_cache_bytes,
            name=settings.name,
            pipeline=settings.pipeline,
            environment=engine_environment(dict(os.environ)) if settings.fork_server else {},
            log_format=settings.log_format,
            log_level=settings.log_level,
        )

    def _loads_ahead(self) -> bool:
        chosen = self._settings.load_ahead
        return self._has_room_for_two if chosen == "auto" else chosen == "on"

    @property
    def _has_room_for_two(self) -> bool:
        """Whether the weights of two stages surely fit beside each other, and what jobs take."""
        return self._settings.device == "cpu"

    def _launcher(self) -> EngineLauncher:
        path = self._settings.fork_server
        return ForkServerLauncher(path) if path else SubprocessLauncher()

    async def _transport(self, meter: StageMeter) -> Transport:
        settings = self._settings
        tls = settings.tls
        transport_settings = TransportSettings(
            host=settings.transport_host,
            port=settings.transport_port,
            advertise=settings.transport_advertise,
            max_message_bytes=settings.slot_bytes,
            transfer_seconds=settings.send_seconds,
            connections_per_peer=settings.send_slots,
            ucx_options={"TCP_PORT_RANGE": settings.ucx_ports} if settings.ucx_ports else {},
            server_tls=RenewedContext.of(tls, server=True) if tls else None,
            client_tls=RenewedContext.of(tls, server=False) if tls else None,
            tls_server_name=settings.tls_server_name,
        )
        try:
            transport = self._make_transport(transport_settings, meter)
            return await self._stack.enter_async_context(transport)
        except TransportError as error:
            raise FailedPreconditionError(
                f"transport {settings.transport}: {error}", reason="TRANSPORT_UNUSABLE"
            ) from error

    def _make_transport(self, settings: TransportSettings, observer: Observer) -> Transport:
        return create(
            self._settings.transport,
            self.front,
            incarnation=self._incarnation,
            settings=settings,
            observer=observer,
        )

    def _serve_metrics(self) -> None:
        listen = self._settings.metrics_listen
        if not listen:
            return
        server = serve_metrics(listen, self._registry)
        self.metrics_address = server.address
        self._stack.callback(server.close)

    def _state_changed(self, state: int, reason: str) -> None:
        ready = state == stage_pb2.WORKER_STATE_READY
        self._spawn(self._server.set_serving(ready))
        if ready:
            self._startup.reached("loaded")
            self._startup.reached("ready")
        # Should it be ended meanwhile, this is what was wrong with it.
        termination.explain("" if ready else reason)

    async def _account(self, meter: StageMeter) -> None:
        # A state that lasts for minutes shows in the counters meanwhile.
        while True:
            await asyncio.sleep(_ACCOUNT_SECONDS)
            meter.account(time.monotonic())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
