"""The simulated system: the gateway's own dispatcher, and replicas that need time."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from disagfusion.dispatch.actions import (
    Action,
    Assign,
    CompleteJob,
    FetchResult,
    Release,
    SaveTransition,
)
from disagfusion.dispatch.dispatcher import Dispatcher
from disagfusion.dispatch.events import (
    Event,
    GrantsOffered,
    HeldOutput,
    InputReceived,
    JobSubmitted,
    OutputKey,
    ResultStored,
    StageDone,
    StageStarted,
    Tick,
    WorkerConnected,
    WorkerInfo,
    WorkerLost,
    WorkerState,
    WorkerStateChanged,
)
from disagfusion.dispatch.settings import DispatchSettings
from disagfusion.jobs.model import STAGE_STATES, JobState, Output, Stage, StageStatus
from disagfusion.scheduling.decision import Place
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import Shape
from disagfusion.simulation.arrivals import Arrival
from disagfusion.simulation.clock import Clock
from disagfusion.simulation.fleet import Fleet, Phase, Replica, Task
from disagfusion.simulation.meters import JobRecord, StageMeter
from disagfusion.simulation.services import Services
from disagfusion.simulation.workload import Workload

ROLES = {
    1: (Stage.DIT,),
    2: (Stage.ENCODER, Stage.DIT),
    3: (Stage.ENCODER, Stage.DIT, Stage.DECODER),
}
"""The parts of the pipeline that a profile's stages play; the others take no time."""
_SLOTS = 2
_PIPELINE = "simulated"
_ENDED = frozenset(state for state in JobState if state.ended)
_MEDIA = (Output(0, "image/png", 1, 1, 1, 1, ""),)


class World:
    """Jobs, replicas and the dispatcher between them.

    Steps within a stage are not told to the dispatcher: they would say what the profile says.

    Args:
        profile: What stages cost; one to three of them.
        workload: Delays, order of queues and what goes wrong.
        arrivals: The jobs, in the order in which they come.
        finished: Called with each job that ends.
    """

    def __init__(
        self,
        profile: Profile,
        workload: Workload,
        arrivals: Iterator[Arrival],
        finished: Callable[[JobRecord, float], None],
    ) -> None:
        self.clock = Clock()
        self.services = Services(profile, workload)
        self.shapes = dict(workload.shapes)
        self.stages = tuple(profile.stages)
        self.fleet = Fleet(
            {
                Place(stage, pool): stage_pool.accelerators
                for stage, stage_profile in profile.stages.items()
                for pool, stage_pool in stage_profile.pools.items()
            },
            self.clock,
        )
        self.meters = {stage: StageMeter() for stage in self.stages}
        self._meters = tuple(self.meters.values())
        self._index = {stage: index for index, stage in enumerate(self.stages)}
        self.jobs: dict[str, JobRecord] = {}
        self.arrived: dict[str, int] = dict.fromkeys(workload.shapes, 0)
        self.lost = 0
        self.on_idle: Callable[[Replica], None] = lambda replica: None
        self.on_served: Callable[[Replica, Shape, float, float], None] | None = None
        self._roles = ROLES[len(self.stages)]
        self._stage_of = {STAGE_STATES[role]: index for index, role in enumerate(self._roles)}
        if Stage.ENCODER in self._roles:
            self._stage_of[JobState.QUEUED] = 0
        self._finished = finished
        self._arrivals = arrivals
        self._coming: Arrival | None = None
        self._events: list[Event] = []
        self._do: dict[type[Action], Callable[[Any], None]] = {
            SaveTransition: self._follow,
            Assign: self._assigned,
            Release: self._release,
            FetchResult: self._fetch,
            CompleteJob: self._complete,
        }
        self._handling = False
        self._wakeup = math.inf
        self._dispatcher = Dispatcher(
            DispatchSettings(
                waiting_per_slot=workload.waiting_per_slot, queue_order=workload.queue_order
            ),
            now=0.0,
            prior=self._expected_seconds,
        )
        for role in Stage:
            if role not in self._roles:
                self._connect_free(role)
        self._expect()

    @property
    def submitted(self) -> int:
        """Jobs that have come so far."""
        return sum(self.arrived.values())

    @property
    def done(self) -> bool:
        """Whether every job has come and has ended."""
        return self._coming is None and not self.jobs

    @property
    def coming(self) -> bool:
        """Whether more jobs will come."""
        return self._coming is not None

    @property
    def still(self) -> bool:
        """Whether nothing happens any more of itself."""
        return (
            self._coming is None
            and not any(meter.running for meter in self.meters.values())
            and not any(replica.phase is Phase.STARTING for replica in self.fleet)
        )

    def connect(self, replica: Replica) -> None:
        """Let a replica take work."""
        replica.phase, replica.since = Phase.READY, self.clock.now
        meter = self.meters[replica.place.stage]
        meter.advance(self.clock.now)
        meter.serving += 1
        held = tuple(
            HeldOutput(OutputKey(*key, attempt), 1) for key, attempt in replica.held.items()
        )
        info = self._info(replica, WorkerState.READY)
        self.tell(WorkerConnected(info, (), held, self._grants(replica, _SLOTS)))

    def drain(self, replica: Replica) -> None:
        """Let a replica finish what it has and take nothing more."""
        replica.phase, replica.since = Phase.DRAINING, self.clock.now
        self.tell(WorkerStateChanged(self._info(replica, WorkerState.DRAINING)))

    def leave(self, replica: Replica) -> None:
        """Take note that a replica serves its stage no more."""
        meter = self.meters[replica.place.stage]
        meter.advance(self.clock.now)
        meter.serving -= 1

    def lose(self, replicas: Iterable[Replica], reason: str) -> None:
        """Let replicas be gone with all they have, at once.

        The dispatcher hears of all of them before it gives their jobs to others.
        """
        for replica in replicas:
            replica.tasks.clear()
            replica.held.clear()
            self._events.append(WorkerLost(replica.name, replica.incarnation, reason))
            replica.epoch += 1
        self._flush()

    def free_at(self, replica: Replica) -> float:
        """Return when a replica will have done what it was given, by the profile."""
        at = self.clock.now
        for task in replica.tasks:
            seconds = self.services.expected(replica.place, self.jobs[task.job_id].shape)
            begun = at if task.started is None else task.started
            at = max(at, begun + seconds)
        return at

    def tell(self, event: Event) -> None:
        """Give the dispatcher an event, and carry out what it wants."""
        self._events.append(event)
        self._flush()

    def _flush(self) -> None:
        if self._handling:
            return
        self._handling = True
        while self._events:
            events, self._events = self._events, []
            for action in self._dispatcher.handle_all(events, self.clock.now):
                do = self._do.get(type(action))
                if do is not None:
                    do(action)
        self._handling = False
        wakeup = self._dispatcher.next_wakeup()
        if wakeup is not None and wakeup < self._wakeup:
            self._wakeup = wakeup
            self.clock.at(wakeup, partial(self._tick, wakeup))

    def _tick(self, at: float) -> None:
        # One that was set before an earlier one is of no use any more.
        if at != self._wakeup:
            return
        self._wakeup = math.inf
        wakeup = self._dispatcher.next_wakeup()
        if wakeup is not None and wakeup <= at:
            self._events.append(Tick())
        self._flush()

    def _expect(self) -> None:
        self._coming = next(self._arrivals, None)
        if self._coming is not None:
            self.clock.at(self._coming.at, self._arrive)

    def _arrive(self) -> None:
        arrival = self._coming
        assert arrival is not None, "set when this call was timed"
        self.arrived[arrival.shape] += 1
        number = self.submitted
        job_id = str(number)
        self.jobs[job_id] = JobRecord(number, self.clock.now, arrival.shape, arrival.deviations)
        self._place(self.jobs[job_id], JobState.QUEUED, running=False)
        self.tell(JobSubmitted(job_id, "", _PIPELINE, cost_key=arrival.shape))
        self._expect()

    def _fetch(self, action: FetchResult) -> None:
        self._events.append(ResultStored(action.output.job_id, action.attempt, _MEDIA))

    def _complete(self, action: CompleteJob) -> None:
        job = self.jobs.pop(action.completion.job_id)
        self._place(job, None, running=False)
        self._finished(job, self.clock.now)

    def _follow(self, action: SaveTransition) -> None:
        transition = action.transition
        job = self.jobs[transition.job_id]
        if transition.state in _ENDED:
            del self.jobs[transition.job_id]
            self.lost += 1
            self._place(job, None, running=False)
            return
        self._place(job, transition.state, running=transition.stage_status is StageStatus.RUNNING)

    def _place(self, job: JobRecord, state: JobState | None, *, running: bool) -> None:
        """Count a job where it is now."""
        stage = None if state is None else self._stage_of.get(state)
        if stage == job.stage and running is job.running:
            return
        if job.stage is not None:
            self._meters[job.stage].count(job.running, -1, self.clock.now)
        if stage is not None:
            self._meters[stage].count(running, 1, self.clock.now)
        job.stage, job.running = stage, running

    def _assigned(self, action: Assign) -> None:
        replica = self.fleet.get(action.worker)
        if replica is None:
            self._do_free(action)
            return
        task = Task(action.job_id, action.attempt)
        replica.tasks.append(task)
        seconds = 0.0
        if action.source is not None:
            seconds = self._transfer_seconds(replica, action.source)
        if seconds > 0.0:
            received = partial(self._received, replica, task, replica.epoch, seconds)
            self.clock.after(seconds, received)
            return
        task.received = True
        if not self._begin(replica):
            self._events.append(
                InputReceived(replica.name, replica.incarnation, task.job_id, task.attempt)
            )

    def _transfer_seconds(self, replica: Replica, source: OutputKey) -> float:
        holder = self.jobs[source.job_id].replica
        sender = self.fleet.get(holder)
        if sender is None or source.stage not in self._roles:
            return 0.0
        stage = self.stages[self._roles.index(source.stage)]
        shape = self.jobs[source.job_id].shape
        return self.services.transfer_seconds(stage, shape, sender.place.pool, replica.place.pool)

    def _received(self, replica: Replica, task: Task, epoch: int, seconds: float) -> None:
        if replica.epoch != epoch or task not in replica.tasks:
            return
        task.received = True
        self._events.append(
            InputReceived(replica.name, replica.incarnation, task.job_id, task.attempt, seconds)
        )
        self._begin(replica)
        self._flush()

    def _begin(self, replica: Replica) -> bool:
        """Let a replica start the first task it has, if it has one and does nothing."""
        task = replica.tasks[0] if replica.tasks else None
        if task is None or task.started is not None or not task.received:
            return False
        job = self.jobs[task.job_id]
        task.started = job.started = self.clock.now
        job.replica = replica.name
        stage = self._index[replica.place.stage]
        end = self.services.end(replica.place, job.shape, job.deviations[stage], self.clock.now)
        self.clock.at(end, partial(self._end, replica, task, replica.epoch))
        self._events.append(
            StageStarted(
                replica.name, replica.incarnation, task.job_id, task.attempt, self._roles[stage]
            )
        )
        return True

    def _end(self, replica: Replica, task: Task, epoch: int) -> None:
        if replica.epoch != epoch:
            return
        replica.tasks.popleft()
        stage = self._index[replica.place.stage]
        meter = self._meters[stage]
        assert task.started is not None, "it ends because it has begun"
        meter.completed += 1
        seconds = self.clock.now - task.started
        meter.service_seconds += seconds
        if self.on_served is not None:
            shape = self.shapes[self.jobs[task.job_id].shape]
            self.on_served(replica, shape, seconds, self.clock.now)
        key = OutputKey(task.job_id, self._roles[stage], task.attempt)
        replica.held[task.job_id, key.stage] = task.attempt
        if replica.phase is Phase.READY:
            self._events.append(
                GrantsOffered(replica.name, replica.incarnation, self._grants(replica, 1))
            )
        media = _MEDIA if key.stage is Stage.DECODER else ()
        self._events.append(StageDone(replica.name, replica.incarnation, HeldOutput(key, 1, media)))
        self._begin(replica)
        self._flush()
        if not replica.tasks:
            self.on_idle(replica)

    def _release(self, action: Release) -> None:
        replica = self.fleet.get(action.worker)
        if replica is None:
            return
        stages = self._roles if action.stage is None else (action.stage,)
        for stage in stages:
            key = (action.job_id, stage)
            if replica.held.get(key, math.inf) <= action.attempt:
                del replica.held[key]
        if not replica.held and not replica.tasks:
            self.on_idle(replica)

    def _expected_seconds(self, pool: str, role: Stage, job: JobSubmitted) -> float | None:
        """Tell the dispatcher what the profile says, for what it has not seen yet."""
        if role not in self._roles or pool == "free":
            return 0.0
        place = Place(self.stages[self._roles.index(role)], pool)
        return self.services.expected(place, job.cost_key)

    def _connect_free(self, role: Stage) -> None:
        info = WorkerInfo(
            f"free-{role.name.lower()}", "0", frozenset({role}), _PIPELINE, "1",
            WorkerState.READY, _SLOTS, "free",
        )  # fmt: skip
        self.tell(WorkerConnected(info, grant_ids=tuple(str(n) for n in range(_SLOTS))))

    def _do_free(self, action: Assign) -> None:
        """Do the work of a stage that the profile does not have: at once."""
        media = _MEDIA if action.stage is Stage.DECODER else ()
        key = OutputKey(action.job_id, action.stage, action.attempt)
        grant = f"{action.job_id}.{action.attempt}"
        self._events.append(GrantsOffered(action.worker, action.incarnation, (grant,)))
        self._events.append(StageDone(action.worker, action.incarnation, HeldOutput(key, 1, media)))

    def _grants(self, replica: Replica, count: int) -> tuple[str, ...]:
        first, replica.grants = replica.grants, replica.grants + count
        return tuple(f"{replica.name}.{number}" for number in range(first, replica.grants))

    def _info(self, replica: Replica, state: WorkerState) -> WorkerInfo:
        stage = self._roles[self._index[replica.place.stage]]
        return WorkerInfo(
            replica.name, replica.incarnation, frozenset({stage}), _PIPELINE, "1", state, _SLOTS,
            replica.place.pool,
        )  # fmt: skip
