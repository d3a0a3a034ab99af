"""A front's behaviour without I/O: events in, actions out.

Every public method is an event; it returns what is to be done now. The time is passed in, and must
never go back. What holds whatever happens, in whatever order:

- a slot is given to one assignment at a time, and not again before nobody writes to it;
- every accepted assignment is answered once, by StageDone or StageFailed;
- an attempt below one that was seen, or that was cancelled, is refused;
- all memory is free again when everything has ended and was released.
"""

from __future__ import annotations

from dataclasses import replace

from disagfusion.stage.actions import (
    Action,
    EndSession,
    EngineInfo,
    GiveSpace,
    OutputKey,
    Product,
    SendOutput,
    TakeStage,
)
from disagfusion.stage.core import FORMS, Activity, Kind
from disagfusion.stage.held import HeldOutput
from disagfusion.stage.jobs import Recent, StageJob
from disagfusion.stage.lifecycle import EngineState
from disagfusion.stage.machine_settings import MachineSettings, Role
from disagfusion.stage.sharing import SharedMachine
from disagfusion.transport.api import MessageHeader, RefusalReason, RefusedError
from disagfusion.transport.slots import SlotState
from disagfusion.v1 import generation_pb2, stage_pb2

__all__ = ["Activity", "MachineSettings", "StageMachine"]


class StageMachine(SharedMachine):
    """See the module.

    Args:
        settings: Settings.
        worker: What of the worker never changes.
        new_id: Makes unguessable identifiers of grants.
        now: Seconds on a monotonic clock.
    """

    def tick(self, now: float) -> list[Action]:
        """Do what is due."""
        self.held.expire(now)
        limit = self._settings.input_seconds
        for job in list(self._jobs.values()):
            filling = self.slots.state(job.slot) is SlotState.FILLING
            if job.ready_at is None and not filling and now >= job.assigned_at + limit:
                message = f"the input did not arrive within {limit:g} s"
                self._fail(job, stage_pb2.FAILURE_KIND_INPUT_LOST, message, now)
        for slot in self.slots:
            received = slot.header and self.slots.state(slot) is SlotState.FILLED
            if received and not slot.assigned and now >= slot.since + limit:
                self.slots.release(slot)
        return self._advance(now)

    # Gateways.

    def assign(self, session: str, assignment: stage_pb2.Assignment, now: float) -> list[Action]:
        """A gateway gives work."""
        owner = self.gateways.name_of(session)
        if not owner:
            return []  # a stream that was replaced: its gateway gives it again, or elsewhere
        slot = self.slots.get(assignment.grant_id)
        try:
            self._check(assignment)
            slot = self.slots.assign(assignment.grant_id, assignment.job_id, assignment.attempt)
        except RefusedError as error:
            self._refuse(owner, assignment, slot, error.detail)
            return self._advance(now)
        self._cancel_jobs(assignment.job_id, assignment.attempt - 1, now)
        self._floor.raise_to(assignment.job_id, assignment.attempt)
        job = StageJob(assignment, owner, slot, now)
        self._jobs[assignment.grant_id] = job
        if not self._settings.port:
            job.ready_at = now
        elif slot.received_at is not None:
            self._input_there(job, now)
        return self._advance(now)

    def send_output(self, session: str, request: stage_pb2.SendOutput, now: float) -> list[Action]:
        """A gateway wants a held output handed over."""
        owner = self.gateways.name_of(session)
        if not owner:
            return []
        held = self.held.get(OutputKey.of(request.output))
        if held is None:
            failed = stage_pb2.SendFailed(
                output=request.output,
                attempt=request.attempt,
                output_lost=True,
                message="the output is not held here",
            )
            self._todo += self.gateways.tell(owner, send_failed=failed)
            return self._advance(now)
        held.pins += 1
        held.touched = now
        self._sent += 1
        self._sends[self._sent] = (held, request, owner)
        self._todo.append(
            SendOutput(
                send_id=self._sent,
                key=held.key,
                offset=held.block,
                nbytes=held.product.nbytes,
                tensors=held.product.tensors,
                structure=held.product.structure,
                request=request,
            )
        )
        return self._advance(now)

    def cancel(self, job_id: str, attempt: int, now: float) -> list[Action]:
        """A gateway wants a job's work stopped, up to and including an attempt."""
        self._floor.raise_to(job_id, attempt + 1)
        self._cancel_jobs(job_id, attempt, now)
        for slot in self.slots:
            header = slot.header
            if header and not slot.assigned and header.job_id == job_id:
                if header.attempt <= attempt:
                    self.slots.release(slot)
        return self._advance(now)

    def release(self, job_id: str, stage: int, attempt: int, now: float) -> list[Action]:
        """A gateway lets outputs go, up to and including an attempt; stage 0 means all."""
        for output in list(self.held):
            key = output.key
            if key.job_id == job_id and key.attempt <= attempt and stage in (0, key.stage):
                self.held.release(key)
        return self._advance(now)

    def quarantine(self, reason: str, now: float) -> list[Action]:
        """A gateway takes the worker out of service."""
        self._quarantine = reason or "quarantined"
        self._hand_back(self._quarantine, now)
        return self._advance(now)

    def drain(self, now: float) -> list[Action]:
        """Take no new work; `Drained` follows when nothing is left."""
        if self._drain.begun is None:
            self._drain.begun = now
            self._hand_back("the worker is draining", now)
        return self._advance(now)

    def change(self, role: Role, now: float) -> list[Action]:
        """Take another stage in place; asking for the present one takes an unfinished change back.

        What is computed is finished, what waits is handed back. Then the engine is replaced, and
        every gateway's stream ends, so that each gets a new hello. Address, memory and what is
        held stay.
        """
        if role.stage == self._settings.stage:
            self._next_role = None
        elif self._next_role != role:
            self._next_role = role
            self._hand_back("the worker changes its stage", now)
        return self._advance(now)

    def _advance(self, now: float) -> list[Action]:
        role = self._next_role
        if role is not None and not self._jobs and self._drain.begun is None:
            self._take(role, now)
        return super()._advance(now)

    def _take(self, role: Role, now: float) -> None:
        self._next_role = None
        self._settings = replace(self._settings, stage=role.stage, port=role.port)
        self._worker.stages[:] = [generation_pb2.Stage.ValueType(role.stage)]
        self._usual_bytes = Recent(FORMS)
        self._todo.append(TakeStage(role.stage))
        self._todo += [EndSession(session) for session in self.gateways.sessions]
        self.engine.replace(now)

    # The data plane.

    def admit(self, header: MessageHeader, now: float) -> int:
        """A message wants in; return where in the slots' memory it goes.

        Raises:
            RefusedError: It may not.
        """
        if header.port != self._settings.port or not self._settings.port:
            raise RefusedError(RefusalReason.MALFORMED, f"no input port {header.port[:32]!r}")
        if not self._floor.admits(header.job_id, header.attempt):
            raise RefusedError(RefusalReason.STALE, "the attempt is superseded")
        slot = self.slots.get(header.grant_id)
        if self._closing and (slot is None or not slot.assigned):
            raise RefusedError(RefusalReason.CLOSING, self.state[1])
        return self.slots.admit(header, now)

    def delivered(self, header: MessageHeader, seconds: float, now: float) -> list[Action]:
        """A message is in its slot, verified."""
        slot = self.slots.filled(header.grant_id, seconds, now)
        if slot is not None and header.grant_id in self._jobs:
            self._input_there(self._jobs[header.grant_id], now)
        return self._advance(now)

    def dropped(self, header: MessageHeader, now: float) -> list[Action]:
        """An admitted message will not come; it may be sent again."""
        slot = self.slots.dropped(header.grant_id, now)
        if slot and not slot.assigned and not self.gateways.name_of(slot.gateway):
            # Whom it was offered to has gone meanwhile.
            self.slots.release(slot)
        return self._advance(now)

    def sent(self, send_id: int, seconds: float, transport: str, now: float) -> list[Action]:
        """An output was acknowledged by its receiver."""
        held, request, owner = self._sends.pop(send_id)
        held.record.send_seconds += seconds
        held.record.transport = transport
        held.acknowledged = True
        held.touched = now
        message = stage_pb2.OutputSent(
            output=request.output,
            attempt=request.attempt,
            send_seconds=seconds,
            size_bytes=held.product.nbytes,
            transport=transport,
        )
        self._todo += self.gateways.tell(owner, sent=message)
        return self.unpin(held, now)

    def send_failed(self, send_id: int, problem: str, now: float) -> list[Action]:
        """An output could not be handed over; it is still held."""
        held, request, owner = self._sends.pop(send_id)
        message = stage_pb2.SendFailed(
            output=request.output, attempt=request.attempt, message=problem
        )
        self._todo += self.gateways.tell(owner, send_failed=message)
        return self.unpin(held, now)

    def pin(self, key: OutputKey, now: float) -> HeldOutput | None:
        """Keep an output in memory until `unpin`; None where it is not held."""
        held = self.held.get(key)
        if held is not None:
            held.pins += 1
            held.touched = now
        return held

    def unpin(self, held: HeldOutput, now: float) -> list[Action]:
        """End a use of an output."""
        self.held.unpin(held)
        return self._advance(now)

    # The engine.

    def engine_launched(self, pid: int) -> None:
        """The engine's process exists."""
        self.engine.pid = pid

    def engine_loaded(self, info: EngineInfo, now: float) -> list[Action]:
        """The engine takes runs."""
        before = self.engine.info.version
        self.engine.loaded(info)
        if before not in ("", info.version):
            # A job never mixes versions, and these began with another.
            self._hand_back("the model has changed", now)
        return self._advance(now)

    def engine_load_failed(self, message: str, now: float) -> list[Action]:
        """The engine cannot load the model and ends."""
        self.engine.load_failed(message)
        self._hand_back_jobs(message, now)
        return self._advance(now)

    def engine_step(self, run_id: int, step: int, of: int, now: float) -> list[Action]:
        """A denoising step is done."""
        job = self._running
        if job is not None and job.run_id == run_id:
            job.step, job.num_inference_steps = step, of
            completed = stage_pb2.StepCompleted(
                job_id=job.job_id, attempt=job.attempt, step=step, num_inference_steps=of
            )
            self._todo += self.gateways.tell(job.owner, step=completed)
        return self._advance(now)

    def engine_needs_space(self, run_id: int, nbytes: int, now: float) -> list[Action]:
        """The engine has an output and waits for room."""
        job = self._running
        if job is None or job.run_id != run_id:
            self._todo.append(GiveSpace(run_id, -1, "no such run"))
            return self._advance(now)
        if job.block is not None:
            if job.granted >= nbytes:
                # It was given before it asked, and crossed the question.
                return self._advance(now)
            self.held.free(job.block)
            job.block, job.granted = None, 0
        if job.stopped is not None:
            self._todo.append(GiveSpace(run_id, -1, job.stopped[1]))
        elif nbytes > self.held.capacity:
            reason = f"the output has {nbytes} bytes, the held store {self.held.capacity}"
            self._todo.append(GiveSpace(run_id, -1, reason))
        else:
            job.wanted = nbytes
        return self._advance(now)

    def engine_finished(self, run_id: int, product: Product, now: float) -> list[Action]:
        """The engine has written a run's output."""
        job = self._running
        if job is None or job.run_id != run_id:
            return self._advance(now)
        self.engine.worked()
        if job.stopped is not None:
            self._fail(job, *job.stopped, now, product)
        elif job.block is None or product.nbytes > job.granted:
            message = "the engine finished without room for its output"
            self._fail(job, stage_pb2.FAILURE_KIND_INTERNAL, message, now, product)
        else:
            self._hold(job, job.block, product, now)
        return self._advance(now)

    def engine_failed(
        self,
        run_id: int,
        kind: Kind,
        message: str,
        now: float,
        *,
        product: Product | None = None,
        ends_engine: bool = False,
    ) -> list[Action]:
        """A run did not come to its end."""
        if ends_engine:
            self.engine.ending()
        for job in (self._running, self._next):
            if job is None or job.run_id != run_id:
                continue
            if job is self._running and not ends_engine:
                self.engine.worked()
            if job.stopped is not None and kind == stage_pb2.FAILURE_KIND_CANCELLED:
                kind, message = job.stopped
            self._fail(job, kind, message, now, product)
        return self._advance(now)

    def engine_lost(self, reason: str, now: float) -> list[Action]:
        """The engine's process has ended."""
        job, following = self._running, self._next
        if job is not None:
            self._fail(job, *(job.stopped or (stage_pb2.FAILURE_KIND_ENGINE_LOST, reason)), now)
        if following is not None:
            # It was not begun: the next engine may.
            following.run_id, self._next = 0, None
            if following.stopped is not None:
                self._fail(following, *following.stopped, now)
        if self.engine.state is EngineState.STARTING:
            # What waits for an engine that cannot begin may wait for ever.
            self._hand_back_jobs(reason, now)
        self.engine.lost(reason, now)
        return self._advance(now)
