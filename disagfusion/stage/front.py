"""The front: the machine with its memory, its engine, its data plane and its gateways."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from disagfusion import failpoints
from disagfusion.errors import FailedPreconditionError
from disagfusion.pipeline.stages import Stage
from disagfusion.stage import actions
from disagfusion.stage.actions import Action, OutputKey, Product
from disagfusion.stage.config import EngineConfig
from disagfusion.stage.engine_messages import engine_info_of, product_of, run_message
from disagfusion.stage.held import HeldOutput
from disagfusion.stage.link import EngineLink
from disagfusion.stage.machine import StageMachine
from disagfusion.stage.machine_settings import Role
from disagfusion.stage.memory import SharedMemory
from disagfusion.stage.meter import StageMeter
from disagfusion.stage.numbers import stage_number, stage_of
from disagfusion.stage.outbox import Outbox
from disagfusion.telemetry import tracing
from disagfusion.telemetry.logging import get_logger
from disagfusion.transport.api import (
    Message,
    MessageHeader,
    PeerAddress,
    Transport,
    TransportError,
)
from disagfusion.v1 import engine_pb2, stage_pb2

_log = get_logger(__name__)


class Front:
    """Feeds the machine with what happens and does what it wants.

    It is the transport's `Inbox` and the engine's `EngineListener`. Everything runs in one event
    loop; nothing blocks.

    Args:
        machine: The behaviour.
        stage: Which stage this is.
        memory: The slots, and after them what is held.
        held_at: Where in the memory the held outputs begin.
        incarnation: Of this process.
        send_seconds: The longest that sending an output may take.
        load_ahead: Whether the engine of a stage that is to be taken loads beside the present one.
        on_state: Is told the worker's state and the reason whenever they change.
    """

    def __init__(
        self,
        machine: StageMachine,
        *,
        stage: Stage,
        memory: SharedMemory,
        held_at: int,
        incarnation: str,
        send_seconds: float,
        load_ahead: bool,
        on_state: Callable[[int, str], None],
    ) -> None:
        self.machine = machine
        self.drained = asyncio.Event()
        self._stage = stage
        self._memory = memory
        self._held_at = held_at
        self._incarnation = incarnation
        self._send_seconds = send_seconds
        self._load_ahead = load_ahead
        self._on_state = on_state
        self._outboxes: dict[str, Outbox] = {}
        self._sends: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._closed = False
        self._next_config: EngineConfig | None = None

    def open(self, link: EngineLink, transport: Transport, meter: StageMeter) -> None:
        """Begin: starts the engine."""
        self._link, self._transport, self._meter = link, transport, meter
        self.do(self.machine.tick(self._now()))

    async def aclose(self) -> None:
        """End streams and transfers; the engine and the transport are closed by their owner."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for outbox in self._outboxes.values():
            outbox.close()
        for task in self._sends:
            task.cancel()
        await asyncio.gather(*self._sends, return_exceptions=True)

    # Gateways.

    def connect(self, session: str, hello: stage_pb2.GatewayHello) -> Outbox:
        """Begin a gateway's session; its messages come out of the outbox."""
        outbox = self._outboxes[session] = Outbox()
        name, shares, former = hello.gateway, hello.shares, hello.takes_over
        now = self._now()
        self.do(self.machine.connected(session, name, now, shares=shares, takes_over=former))
        return outbox

    def disconnect(self, session: str) -> None:
        """End a gateway's session."""
        del self._outboxes[session]
        if not self._closed:
            self.do(self.machine.disconnected(session, self._now()))

    def handle(self, session: str, request: stage_pb2.WorkRequest) -> None:
        """Do what a gateway asks for, unless it was replaced."""
        now, machine = self._now(), self.machine
        if not machine.gateways.name_of(session):
            return
        match request.WhichOneof("message"):
            case "assign":
                failpoints.reach("front.assign")
                self.do(machine.assign(session, request.assign, now))
            case "send":
                self.do(machine.send_output(session, request.send, now))
            case "cancel":
                self.do(machine.cancel(request.cancel.job_id, request.cancel.attempt, now))
            case "release":
                asked = request.release
                self.do(machine.release(asked.job_id, asked.stage, asked.attempt, now))
            case "quarantine":
                _log.error("quarantined", reason=request.quarantine.reason)
                self.do(machine.quarantine(request.quarantine.reason, now))
            case "take_over":
                self.do(machine.take_over(session, request.take_over.gateways, now))
            case "demand":
                self.do(machine.demand(session, request.demand.waiting, now))
            case "return_grants":
                self.do(machine.return_grants(session, request.return_grants.grant_ids, now))
            case "ping":
                pong = stage_pb2.WorkResponse(pong=stage_pb2.Pong(nonce=request.ping.nonce))
                self._outboxes[session].put(pong)

    def change_stage(self, stage: Stage, config: EngineConfig) -> None:
        """Take another stage in place; see `StageMachine.change`.

        Args:
            stage: Which; the present one takes a change back that has not come to its end.
            config: What the stage's engine is told.

        Raises:
            FailedPreconditionError: The worker is leaving, or out of service.
        """
        state, reason = self.machine.state
        changing = self.machine.describe().changes_to
        if state == stage_pb2.WORKER_STATE_QUARANTINED or (
            state == stage_pb2.WORKER_STATE_DRAINING and not changing
        ):
            raise FailedPreconditionError(f"the worker is {reason}", reason="WORKER_LEAVING")
        self._next_config = config
        role = Role(stage_number(stage), stage.value if stage.previous else "")
        self.do(self.machine.change(role, self._now()))
        if self._load_ahead:
            # With nothing to finish the stage is taken by now, and nothing is prepared.
            self._link.prepare(config)

    def drain(self) -> None:
        """Take no new work; `drained` is set when nothing is left."""
        # No stage is taken any more.
        self._load_ahead = False
        self._link.withdraw()
        self.do(self.machine.drain(self._now()))

    def pin(self, key: OutputKey) -> tuple[HeldOutput, memoryview] | None:
        """Keep an output in memory and return it; None where it is not held."""
        held = self.machine.pin(key, self._now())
        return None if held is None else (held, self._held_view(held.block, held.product.nbytes))

    def unpin(self, held: HeldOutput) -> None:
        """End a use of an output."""
        self.do(self.machine.unpin(held, self._now()))

    # The transport's Inbox.

    def admit(self, header: MessageHeader) -> memoryview:
        """See `transport.api.Inbox`."""
        offset = self.machine.admit(header, self._now())
        self._meter.account(self._now())
        return self._memory.view(offset, header.nbytes)

    def delivered(self, header: MessageHeader, seconds: float) -> None:
        """See `transport.api.Inbox`."""
        failpoints.reach("front.delivered.before")
        self.do(self.machine.delivered(header, seconds, self._now()))
        failpoints.reach("front.delivered.after")

    def dropped(self, header: MessageHeader, reason: str) -> None:
        """See `transport.api.Inbox`."""
        _log.warning("input not received", job_id=header.job_id, problem=reason)
        self.do(self.machine.dropped(header, self._now()))

    # The engine's listener.

    def launched(self, pid: int) -> None:
        """See `EngineListener`."""
        self.machine.engine_launched(pid)
        _log.info("engine started", engine_pid=pid)

    def message(self, message: engine_pb2.EngineResponse) -> None:
        """See `EngineListener`."""
        now, machine = self._now(), self.machine
        match message.WhichOneof("message"):
            case "loaded":
                info = engine_info_of(message.loaded)
                _log.info("engine loaded", seconds=info.load_seconds, device=info.device)
                self.do(machine.engine_loaded(info, now))
            case "load_failed":
                _log.error("model not loaded", problem=message.load_failed.message)
                self.do(machine.engine_load_failed(message.load_failed.message, now))
            case "step":
                step = message.step
                self.do(machine.engine_step(step.run_id, step.step, step.num_inference_steps, now))
            case "need_space":
                need = message.need_space
                self.do(machine.engine_needs_space(need.run_id, need.size_bytes, now))
            case "finished":
                failpoints.reach("front.done.before")
                product = product_of(message.finished)
                self.do(machine.engine_finished(message.finished.run_id, product, now))
                failpoints.reach("front.done.after")
            case "failed":
                failed = message.failed
                product = Product(0, compute_seconds=failed.compute_seconds, steps=failed.steps)
                self.do(
                    machine.engine_failed(
                        failed.run_id,
                        failed.kind,
                        failed.message,
                        now,
                        product=product,
                        ends_engine=failed.ends_engine,
                    )
                )

    def lost(self, reason: str) -> None:
        """See `EngineListener`."""
        if self._closed:
            return
        _log.error("engine lost", problem=reason)
        self.do(self.machine.engine_lost(reason, self._now()))

    # Inside.

    def do(self, todo: Iterable[Action]) -> None:
        """Do what the machine wants."""
        for action in todo:
            self._do(action)
        self._meter.account(self._now())
        self._arm()

    def _do(self, action: Action) -> None:
        match action:
            case actions.Tell(session, message):
                self._outboxes[session].put(message)
            case actions.EndSession(session):
                self._outboxes[session].close()
            case actions.RunOnEngine():
                self._link.send(run=run_message(action))
            case actions.CancelOnEngine(run_id):
                self._link.send(cancel=engine_pb2.CancelRun(run_id=run_id))
            case actions.GiveSpace(run_id, offset, reason, nbytes):
                place = offset if offset < 0 else self._held_at + offset
                space = engine_pb2.GiveSpace(
                    run_id=run_id, offset=place, reason=reason, size_bytes=nbytes
                )
                self._link.send(space=space)
            case actions.StartEngine():
                if self.machine.engine.restarts:
                    self._meter.restarted("load" if self.machine.engine.problem else "lost")
                self._link.start()
            case actions.SendOutput():
                task = asyncio.create_task(self._send(action), name="send")
                self._sends.add(task)
                task.add_done_callback(self._sends.discard)
            case actions.StageEnded():
                self._ended(action)
            case actions.StateChanged(state, reason):
                _log.info(
                    "worker state", state=stage_pb2.WorkerState.Name(_state(state)), reason=reason
                )
                self._on_state(state, reason)
            case actions.TakeStage(stage):
                self._take_stage(stage)
            case actions.Drained():
                self.drained.set()

    def _take_stage(self, number: int) -> None:
        assert self._next_config is not None, "a change begins with it"
        before, self._stage = self._stage, stage_of(number)
        _log.info("stage changed", before=before.value, stage=self._stage.value)
        self._meter.change_stage(self._stage.value, self._now())
        self._link.replace(self._next_config)

    def _now(self) -> float:
        return time.monotonic()

    def _arm(self) -> None:
        wakeup = self.machine.next_wakeup()
        if self._timer is not None:
            if wakeup is not None and self._timer_at <= wakeup:
                return
            self._timer.cancel()
            self._timer = None
        if wakeup is not None and not self._closed:
            delay = max(0.0, wakeup - self._now())
            self._timer_at = wakeup
            self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self.do(self.machine.tick(self._now()))

    def _held_view(self, block: int, nbytes: int) -> memoryview:
        return self._memory.view(self._held_at + block, nbytes)

    async def _send(self, action: actions.SendOutput) -> None:
        request = action.request
        # The worker may have made it when it had another stage.
        made_by = stage_of(action.key.stage)
        following = made_by.following
        header = MessageHeader(
            message_id=str(action.send_id),
            job_id=action.key.job_id,
            attempt=request.attempt,
            port=following.value if following else "",
            grant_id=request.grant_id,
            sender=self._incarnation,
            source_stage=made_by.value,
            source_attempt=action.key.attempt,
            tensors=action.tensors,
            structure=action.structure,
            nbytes=action.nbytes,
            traceparent=request.traceparent,
        )
        to = PeerAddress(request.to.backend, request.to.incarnation, request.to.data)
        message = Message(header, (self._held_view(action.offset, action.nbytes),))
        try:
            delivery = await self._transport.send(to, message, timeout=self._send_seconds)
        except TransportError as error:
            self._not_sent(action, str(error))
            return
        # The boundary: whatever the backend trips over, the gateway is told.
        except Exception as error:  # noqa: BLE001
            _log.exception("output not sent", job_id=action.key.job_id)
            self._not_sent(action, f"{type(error).__name__}: {error}")
            return
        now = self._now()
        self.do(self.machine.sent(action.send_id, delivery.seconds, delivery.transport, now))
        if tracing.enabled():
            end = time.time()
            tracing.record(
                f"transfer {header.source_stage}-{header.port}",
                traceparent=request.traceparent,
                start=end - delivery.seconds,
                end=end,
                attributes={"job_id": header.job_id, "transport": delivery.transport},
            )

    def _not_sent(self, action: actions.SendOutput, problem: str) -> None:
        _log.warning("output not sent", job_id=action.key.job_id, problem=problem)
        self.do(self.machine.send_failed(action.send_id, problem, self._now()))

    def _ended(self, ended: actions.StageEnded) -> None:
        self._meter.ended(ended)
        record, assignment = ended.record, ended.assignment
        context = {"job_id": assignment.job_id, "attempt": assignment.attempt}
        if ended.kind:
            _log.warning("stage failed", outcome=record.outcome, problem=ended.message, **context)
        else:
            _log.info(
                "stage done",
                compute_seconds=round(record.compute_seconds, 6),
                queue_seconds=round(record.queue_seconds, 6),
                bytes_out=record.bytes_out,
                **context,
            )
        if tracing.enabled():
            end = time.time()
            tracing.record(
                f"stage {self._stage.value}",
                traceparent=assignment.traceparent,
                start=end - record.compute_seconds,
                end=end,
                attributes={"job_id": assignment.job_id, "worker": record.worker},
                error=ended.message if ended.kind else "",
            )


def _state(number: int) -> stage_pb2.WorkerState.ValueType:
    return stage_pb2.WorkerState.ValueType(number)
