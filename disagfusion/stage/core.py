"""The state of a front's machine and what follows from it; `machine` has the events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

from disagfusion.stage import granting
from disagfusion.stage.actions import (
    Action,
    CancelOnEngine,
    Drained,
    GiveSpace,
    OutputKey,
    Product,
    RunOnEngine,
    StageEnded,
    StartEngine,
    StateChanged,
)
from disagfusion.stage.drain import Drain
from disagfusion.stage.gateways import Gateways
from disagfusion.stage.held import HeldOutput, HeldStore
from disagfusion.stage.inputs import InputSlots, Slot
from disagfusion.stage.jobs import AttemptFloor, Recent, StageJob, outcome_of
from disagfusion.stage.lifecycle import EngineLifecycle, EngineState
from disagfusion.stage.machine_settings import MachineSettings, Role, tagged
from disagfusion.transport.api import RefusalReason, RefusedError
from disagfusion.transport.slots import SlotState
from disagfusion.v1 import generation_pb2, stage_pb2

Activity = Literal["busy", "starved", "blocked", "loading"]
Direction = Literal["sent", "received"]
Transfer = Literal["exposed", "hidden"]
Kind: TypeAlias = stage_pb2.FailureKind.ValueType

FORMS = 256


class MachineCore:
    """State, what can be asked of it, and the consequences of events; see `StageMachine`."""

    def __init__(
        self,
        settings: MachineSettings,
        worker: stage_pb2.Worker,
        *,
        new_id: Callable[[], str],
        now: float,
    ) -> None:
        self._settings = settings
        self._worker = worker
        self._worker.slots = settings.slots
        self.slots = InputSlots(settings.slots, settings.slot_bytes, new_id)
        self.held = HeldStore(settings.held_bytes, settings.held_seconds, self._keeps)
        self.engine = EngineLifecycle(settings.restart, now)
        self.gateways = Gateways()
        self._floor = AttemptFloor()
        self._jobs: dict[str, StageJob] = {}
        self._running: StageJob | None = None
        # The engine has it already, and begins it by itself when the one before has ended.
        self._next: StageJob | None = None
        self._runs = 0
        # What outputs take, by the form of what was asked for.
        self._usual_bytes = Recent[tuple[int, ...], int](FORMS)
        self._sends: dict[int, tuple[HeldOutput, stage_pb2.SendOutput, str]] = {}
        self._sent = 0
        self._quarantine = ""
        self._drain = Drain(settings.drain_seconds, now)
        # What it will be there for, as long as it still has something to end.
        self._next_role: Role | None = None
        self._told = (stage_pb2.WORKER_STATE_LOADING, "")
        self._todo: list[Action] = []

    # What can be asked at any time.

    @property
    def state(self) -> tuple[stage_pb2.WorkerState.ValueType, str]:
        """Whether the worker takes work, and why not."""
        if self._quarantine:
            return stage_pb2.WORKER_STATE_QUARANTINED, self._quarantine
        if self._drain.begun is not None:
            return stage_pb2.WORKER_STATE_DRAINING, "draining"
        if self._next_role is not None:
            return stage_pb2.WORKER_STATE_DRAINING, "changing its stage"
        if self.engine.state is EngineState.READY:
            return stage_pb2.WORKER_STATE_READY, ""
        return stage_pb2.WORKER_STATE_LOADING, self.engine.problem

    @property
    def _closing(self) -> bool:
        leaving = self._drain.begun is not None or self._next_role is not None
        return leaving or bool(self._quarantine)

    @property
    def activity(self) -> Activity:
        """What the accelerator does."""
        if self.engine.state is not EngineState.READY:
            return "loading"
        if self._running is None:
            return "starved"
        return "blocked" if self._running.wanted is not None else "busy"

    def transfer(self, direction: Direction) -> Transfer | None:
        """Tell whether inputs or outputs are under way, and whether the engine waits for them."""
        activity = self.activity
        if direction == "received":
            if not any(self.slots.state(slot) is SlotState.FILLING for slot in self.slots):
                return None
            return "exposed" if activity == "starved" else "hidden"
        if not self._sends:
            return None
        waits = activity == "blocked" or (self._settings.synchronous and activity == "starved")
        return "exposed" if waits else "hidden"

    @property
    def waiting(self) -> int:
        """Assignments that are not computed yet."""
        return len(self._jobs) - (self._running is not None)

    @property
    def computing(self) -> bool:
        """Whether the engine has a run."""
        return self._running is not None

    def describe(self) -> stage_pb2.Worker:
        """Return all that a worker says of itself."""
        worker = stage_pb2.Worker()
        worker.CopyFrom(self._worker)
        worker.state, worker.reason = self.state
        worker.changes_to = generation_pb2.Stage.ValueType(getattr(self._next_role, "stage", 0))
        info = self.engine.info
        worker.spec_json = info.spec_json
        worker.version = tagged(info.version, self._settings.version_tag)
        worker.device, worker.threads = info.device or worker.device, info.threads or worker.threads
        worker.accelerators = info.accelerators
        worker.engine_pid = self.engine.pid
        return worker

    def set_addresses(self, address: stage_pb2.PeerAddress, metrics_address: str) -> None:
        """Note where the worker can be reached, once it listens."""
        self._worker.address.CopyFrom(address)
        self._worker.metrics_address = metrics_address

    def next_wakeup(self) -> float | None:
        """When `tick` has something to do next."""
        limit = self._settings.input_seconds
        times = [self.held.next_expiry()]
        if not self._drain.over:
            times.append(self.engine.restart_at)
        # While a message is being received the transport watches over it.
        times += [
            job.assigned_at + limit
            for job in self._jobs.values()
            if job.ready_at is None and self.slots.state(job.slot) is not SlotState.FILLING
        ]
        times += [
            slot.since + limit
            for slot in self.slots
            if not slot.assigned and self.slots.state(slot) is SlotState.FILLED
        ]
        times.append(self._drain.wakeup())
        return min((time for time in times if time is not None), default=None)

    # The consequences of events.

    def _keeps(self, held: HeldOutput) -> bool:
        """Tell whether an output stays for as long as its gateway, which will release it."""
        # What waits for a later stage must not keep this worker from being it.
        in_the_way = self.activity == "blocked" and held.key.stage < self._settings.stage
        return self.gateways.connected(held.owner) and not in_the_way

    def _check(self, assignment: stage_pb2.Assignment) -> None:
        def refuse(why: str) -> RefusedError:
            return RefusedError(RefusalReason.STALE, why)

        if self._closing:
            raise refuse(f"the worker is {self.state[1]}")
        if assignment.stage != self._settings.stage:
            raise refuse("the worker has another stage")
        if not assignment.job_id or assignment.attempt < 1:
            raise refuse("an assignment needs a job and an attempt")
        if bool(self._settings.port) != assignment.HasField("input"):
            raise refuse("an input is named for the first stage, or none for another")
        if not self._floor.admits(assignment.job_id, assignment.attempt):
            raise refuse("the attempt is superseded")
        if any(
            job.job_id == assignment.job_id and job.attempt >= assignment.attempt
            for job in self._jobs.values()
        ):
            raise refuse("the assignment is here already")

    def _refuse(
        self, owner: str, assignment: stage_pb2.Assignment, slot: Slot | None, why: str
    ) -> None:
        # The gateway takes the grant for used: without this the slot would be lost to it.
        if slot is not None and not slot.assigned:
            bound = slot.header
            if bound is None or (bound.job_id, bound.attempt) == (
                assignment.job_id,
                assignment.attempt,
            ):
                self.slots.release(slot)
        failed = stage_pb2.StageFailed(
            job_id=assignment.job_id,
            attempt=assignment.attempt,
            stage=assignment.stage,
            kind=stage_pb2.FAILURE_KIND_REFUSED,
            message=why,
        )
        self._todo += self.gateways.tell(owner, failed=failed)

    def _input_there(self, job: StageJob, now: float) -> None:
        header = job.slot.header
        assert header is not None
        job.ready_at = now
        wanted = job.assignment.input.attempt
        if header.source_attempt != wanted:
            message = f"the output of attempt {header.source_attempt} came, not of {wanted}"
            self._fail(job, stage_pb2.FAILURE_KIND_INPUT_LOST, message, now)
            return
        received = stage_pb2.InputReceived(
            job_id=job.job_id,
            attempt=job.attempt,
            receive_seconds=job.slot.receive_seconds,
            size_bytes=header.nbytes,
        )
        self._todo += self.gateways.tell(job.owner, received=received)

    def _cancel_jobs(self, job_id: str, attempt: int, now: float) -> None:
        for job in list(self._jobs.values()):
            if job.job_id == job_id and job.attempt <= attempt:
                self._stop(job, stage_pb2.FAILURE_KIND_CANCELLED, "cancelled", now)

    def _stop(self, job: StageJob, kind: Kind, why: str, now: float) -> None:
        """End a job: at once, or with the engine's answer where the engine has it."""
        if not job.run_id:
            self._fail(job, kind, why, now)
        elif job.stopped is None:
            job.stopped = kind, why
            self._todo.append(CancelOnEngine(job.run_id))
            if job.wanted is not None:
                job.wanted = None
                self._todo.append(GiveSpace(job.run_id, -1, why))

    def _hand_back_jobs(self, why: str, now: float) -> None:
        for job in list(self._jobs.values()):
            if job is not self._running:
                self._stop(job, stage_pb2.FAILURE_KIND_REFUSED, why, now)

    def _hand_back(self, why: str, now: float) -> None:
        self._hand_back_jobs(why, now)
        for slot in self.slots:
            if not slot.assigned:
                self.slots.release(slot)

    def _hold(self, job: StageJob, block: int, product: Product, now: float) -> None:
        self._end(job)
        record = job.record(self._worker.name, self.engine, now, product, "done")
        key = OutputKey(job.job_id, self._settings.stage, job.attempt)
        self._usual_bytes[job.form] = product.nbytes
        held = HeldOutput(key, block, product, record, now, job.owner)
        # Files are fetched, not handed over.
        held.acknowledged = bool(product.media)
        self.held.add(held)
        self._todo += self.gateways.tell(job.owner, done=held.done())
        ended = StageEnded(job.assignment, record, prompt_cache=product.prompt_cache)
        self._todo.append(ended)

    def _fail(
        self, job: StageJob, kind: Kind, message: str, now: float, product: Product | None = None
    ) -> None:
        self._end(job)
        if job.block is not None:
            self.held.free(job.block)
        made = product or Product(0)
        record = job.record(self._worker.name, self.engine, now, made, outcome_of(kind))
        record.bytes_out = 0
        failed = stage_pb2.StageFailed(
            job_id=job.job_id,
            attempt=job.attempt,
            stage=job.assignment.stage,
            kind=kind,
            message=message,
            record=record,
        )
        self._todo += self.gateways.tell(job.owner, failed=failed)
        self._todo.append(StageEnded(job.assignment, record, kind, message))

    def _end(self, job: StageJob) -> None:
        del self._jobs[job.assignment.grant_id]
        if job is self._running:
            self._running = None
        elif job is self._next:
            self._next = None
        self.slots.release(job.slot)

    def _advance(self, now: float) -> list[Action]:
        """Do what has become possible; return all that is to be done."""
        if self.engine.due(now) and not self._drain.over:
            self.engine.starting()
            self._todo.append(StartEngine())
        self._give_space()
        self._feed_engine(now)
        self._issue_grants(now)
        for slot in granting.recalls(self.gateways, self.slots):
            recall = stage_pb2.RecallGrants(grant_ids=[slot.grant_id])
            self._todo += self.gateways.tell(self.gateways.name_of(slot.gateway), recall=recall)
        self._announce_state()
        if self._drain.check(working=bool(self._jobs), holding=self.held.busy, now=now):
            self.engine.stop()
            self._todo.append(Drained())
        todo, self._todo = self._todo, []
        return todo

    def _give_space(self) -> None:
        job = self._running
        if job is None or job.wanted is None:
            return
        block = self.held.allocate(job.wanted)
        if block is not None:
            job.block, job.granted, job.wanted = block, job.wanted, None
            self._todo.append(GiveSpace(job.run_id, block, nbytes=job.granted))

    def _feed_engine(self, now: float) -> None:
        if self.engine.state is not EngineState.READY:
            return
        if self._running is None:
            job, self._next = self._next or self._give_run(), None
            if job is None:
                return
            self._running, job.started_at = job, now
            if job.stopped is None:
                self._give_space_early(job)
                started = stage_pb2.StageStarted(
                    job_id=job.job_id, attempt=job.attempt, stage=job.assignment.stage
                )
                self._todo += self.gateways.tell(job.owner, started=started)
        if self._next is None:
            self._next = self._give_run()

    def _give_space_early(self, job: StageJob) -> None:
        # So that the engine need not ask and wait between two jobs.
        nbytes = self._usual_bytes.get(job.form)
        block = self.held.allocate(nbytes) if nbytes else None
        if nbytes and block is not None:
            job.block, job.granted = block, nbytes
            self._todo.append(GiveSpace(job.run_id, block, nbytes=nbytes))

    def _give_run(self) -> StageJob | None:
        ready = [job for job in self._jobs.values() if job.ready_at is not None and not job.run_id]
        if not ready:
            return None
        job = min(ready, key=lambda entry: entry.ready_at or 0.0)
        self._runs += 1
        job.run_id = self._runs
        offset = self.slots.offset(job.slot)
        self._todo.append(RunOnEngine(job.run_id, job.assignment, offset, job.slot.header))
        return job

    def _issue_grants(self, now: float, *, greeted: str = "") -> None:
        """Give free slots away; the session that is being greeted learns it from its hello."""
        if not self.gateways or self.state[0] != stage_pb2.WORKER_STATE_READY:
            return
        fresh: dict[str, list[str]] = {}
        while self._may_grant():
            session = granting.neediest(self.gateways, self.slots)
            self.gateways.serve(session)
            fresh.setdefault(session, []).append(self.slots.issue(session, now).grant_id)
        fresh.pop(greeted, None)
        for session, grants in fresh.items():
            name = self.gateways.name_of(session)
            self._todo += self.gateways.tell(name, grants=stage_pb2.Grants(grant_ids=grants))

    def _may_grant(self) -> bool:
        if not self._settings.synchronous:
            return self.slots.free > 0
        empty = self.slots.free == self._settings.slots and not self._jobs
        return empty and all(output.acknowledged for output in self.held)

    def _announce_state(self) -> None:
        state = self.state
        if state != self._told:
            self._told = state
            changed = stage_pb2.WorkerStateChanged(
                state=state[0], reason=state[1], worker=self.describe()
            )
            self._todo += self.gateways.tell_all(state=changed)
            self._todo.append(StateChanged(*state))
