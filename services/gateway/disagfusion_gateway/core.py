"""The shell around the dispatcher: events in, and its actions carried out in order.

Everything runs on one event loop and `post` never waits, so the dispatcher sees one event at a
time. Work of an attempt that is durable is given out at once. All other actions stand in one queue:
a commit begins when its action enters the queue, so that the store can make many durable at once,
and what stands behind it is carried out when it is done.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from disagfusion import failpoints
from disagfusion.dispatch import actions, events
from disagfusion.dispatch.dispatcher import Dispatcher
from disagfusion.dispatch.settings import Load
from disagfusion.errors import NotFoundError, UnavailableError
from disagfusion.jobs.model import InputImage, Job, JobEvent, NewJob, Stage, StaleTransitionError
from disagfusion.jobs.store import JobStore, Submission
from disagfusion.telemetry.logging import get_logger
from disagfusion.v1 import stage_pb2
from disagfusion_gateway import worker_messages
from disagfusion_gateway.fetching import ResultFetcher
from disagfusion_gateway.fleet import Fleet
from disagfusion_gateway.observe import ActiveJob, Observer
from disagfusion_gateway.sessions import Sessions
from disagfusion_gateway.steps import Step, active_job, nothing, sender, settled, submitted
from disagfusion_gateway.watchers import Watchers

# Nobody can say when a full disk has room again, or a database is back.
_SETTLING_SECONDS = 10.0
_RETRY_SECONDS = 0.25

_log = get_logger(__name__)


class Core:
    """Owns the dispatcher.

    Args:
        dispatcher: Decides.
        store: Where jobs are durable.
        sessions: The workers.
        fetcher: Brings results here.
        watchers: Those who are told.
        observer: Counts.
        fleet: Follows, for balancers.
        clock: Unix seconds.
        shares: Whether other gateways have jobs at the same workers.

    Attributes:
        failed: Ends with the exception after which the gateway cannot go on.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        store: JobStore,
        sessions: Sessions,
        fetcher: ResultFetcher,
        watchers: Watchers,
        observer: Observer,
        fleet: Fleet,
        clock: Callable[[], float] = time.time,
        *,
        shares: bool = False,
    ) -> None:
        self._shares = shares
        self._demanded: frozenset[Stage] = frozenset()
        self._dispatcher = dispatcher
        self._store = store
        self._sessions = sessions
        self._fetcher = fetcher
        self._watchers = watchers
        self._observer = observer
        self._fleet = fleet
        self._clock = clock
        self._jobs: dict[str, ActiveJob] = {}
        self._queue: deque[Step] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._wakeup: float | None = None
        self._submitting = 0
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def post(self, event: events.Event) -> None:
        """Give an event to the dispatcher and begin what it wants done."""
        if self.failed.done():
            return
        begin = time.perf_counter()
        try:
            now = self._clock()
            self._fleet.happened(event, now)
            found = self._dispatcher.handle(event, now)
            self._observer.decided(time.perf_counter() - begin)
            for action in found:
                self._begin(action)
            self._set_timer()
            if self._shares:
                self._tell_demand(event)
        except Exception as error:  # noqa: BLE001 - whoever waits for `failed` raises it
            self._fail(error)
        else:
            self._pump()

    def knows(self, job_id: str) -> bool:
        """Tell whether an unfinished job is this gateway's, as far as it knows."""
        return job_id in self._jobs

    def load(self, tenant: str) -> Load:
        """Return what admission has to know, submissions that are under way included."""
        load = self._dispatcher.load(tenant)
        return dataclasses.replace(load, queued=load.queued + self._submitting)

    def backlog(self) -> dict[tuple[str, Stage], float]:
        """Return the predicted seconds of work that is left, by pipeline and stage."""
        return self._dispatcher.backlog(self._clock())

    async def submit(self, job: NewJob, *, parent: str = "") -> Submission:
        """Store a job and hand it to the dispatcher.

        Args:
            job: What to do.
            parent: The caller's traceparent.

        Raises:
            AlreadyExistsError: The client request id was used with another content.
            ResourceExhaustedError: The disk is full.
        """
        entering = asyncio.create_task(self._enter(job, parent))
        entering.add_done_callback(lambda task: task.cancelled() or task.exception())
        # What is stored is done, even where the caller has gone meanwhile.
        return await asyncio.shield(entering)

    async def _enter(self, job: NewJob, parent: str) -> Submission:
        self._submitting += 1
        try:
            submission = await self._store.submit(job)
        finally:
            self._submitting -= 1
        failpoints.reach("gateway.submit.stored")
        if submission.created:
            stored = submission.job
            active = active_job(stored, has_images=bool(job.images), parent=parent)
            self._jobs[job.job_id] = active
            self._observer.job_accepted()
            self._observer.job_entered(active)
            self._fleet.entered(job.job_id, active, self._clock(), new=True)
            self.post(submitted(stored))
        return submission

    def cancel_all(self, reason: str) -> int:
        """Have every unfinished job end as CANCELLED; return how many there are."""
        found = list(self._jobs)
        for job_id in found:
            self.post(events.CancelRequested(job_id, reason))
        return len(found)

    def recover(self, job: Job, *, contested: bool = False) -> None:
        """Take up a job that had not ended when its gateway did.

        Args:
            job: As it is in the store.
            contested: Whether that gateway may still be there.
        """
        active = active_job(job, has_images=True)
        active.state, active.stage_status = job.state, job.stage_status
        active.attempt = job.attempt
        self._jobs[job.job_id] = active
        self._observer.job_entered(active)
        self._fleet.entered(job.job_id, active, self._clock(), new=False)
        self._fleet.pinned(job.job_id, job.version)
        self.post(
            events.JobRecovered(
                job=submitted(job),
                state=job.state,
                stage_status=job.stage_status,
                attempt=job.attempt,
                version=job.version,
                failures=job.failures,
                contested=contested,
            )
        )

    async def aclose(self) -> None:
        """Decide nothing more, and wait until what was begun is durable."""
        if not self.failed.done():
            self.failed.cancel()
        if self._timer is not None:
            self._timer.cancel()
        tasks = [step.ready for step in self._queue if step.ready is not None]
        self._queue.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SETTLING_SECONDS):
                await asyncio.gather(*tasks, return_exceptions=True)

    def _tell_demand(self, event: events.Event) -> None:
        waiting = self._dispatcher.waiting()
        for stage in waiting ^ self._demanded:
            self._sessions.demand(stage, stage in waiting)
        self._demanded = waiting
        if isinstance(event, events.WorkerConnected) and waiting & event.worker.stages:
            session = self._sessions.get(event.worker.name)
            if session is not None:
                session.demand(True)

    def _set_timer(self) -> None:
        wakeup = self._dispatcher.next_wakeup()
        if wakeup == self._wakeup:
            return
        self._wakeup = wakeup
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if wakeup is not None:
            delay = max(0.0, wakeup - self._clock())
            self._timer = asyncio.get_running_loop().call_later(delay, self._tick)

    def _tick(self) -> None:
        self._timer = self._wakeup = None
        self.post(events.Tick())

    def _fail(self, error: BaseException) -> None:
        if not self.failed.done():
            self.failed.set_exception(error)

    def _pump(self) -> None:
        """Carry out actions until one has to wait."""
        while self._queue and not self.failed.done():
            step = self._queue[0]
            if step.ready is not None and not step.ready.done():
                return
            self._queue.popleft()
            try:
                step.carry_out(step.ready.result() if step.ready is not None else None)
            except (StaleTransitionError, NotFoundError) as error:
                self._drop(step.job_id, error.message)
            except Exception as error:  # noqa: BLE001 - whoever waits for `failed` raises it
                self._fail(error)

    def _drop(self, job_id: str, message: str) -> None:
        """Let go of a job whose change the store refused: it has another owner, or is gone."""
        _log.error("job dropped", job_id=job_id, problem=message)
        for step in self._queue:
            if step.job_id == job_id:
                step.carry_out = nothing
                step.ready = asyncio.create_task(settled(step.ready)) if step.ready else None
                if step.ready is not None:
                    step.ready.add_done_callback(lambda _: self._pump())
        active = self._jobs.pop(job_id, None)
        if active is not None:
            self._observer.job_left(active)
            self._fleet.left(job_id, self._clock())
        self.post(events.JobDropped(job_id))

    def _begin(self, action: actions.Action) -> None:
        step = self._step(action)
        if step.ready is None and self._at_once(action):
            step.carry_out(None)
        else:
            self._queue.append(step)

    def _at_once(self, action: actions.Action) -> bool:
        if isinstance(action, actions.Assign):
            # After a crash attempts are counted on from the store's.
            return action.attempt == self._jobs[action.job_id].attempt
        return isinstance(action, actions.Send | actions.FetchResult | actions.ReturnGrants)

    def _step(self, action: actions.Action) -> Step:
        """Return an action as a step, with what it needs as it is now: above all the session."""
        match action:
            case actions.SaveTransition(transition):
                self._fleet.pinned(transition.job_id, transition.version)
                work = self._commit(self._store.transition(transition))
                return self._waiting(transition.job_id, work, self._saved)
            case actions.CompleteJob(completion):
                work = self._commit(self._store.complete(completion))
                return self._waiting(completion.job_id, work, self._saved)
            case actions.Publish():
                return Step(action.job_id, lambda _: self._watchers.publish(action))
            case actions.Assign():
                return self._assign(action)
            case actions.Send():
                return self._send(action)
            case actions.FetchResult():
                return Step(action.output.job_id, lambda _: self._fetcher.fetch(action, self.post))
            case actions.DiscardResult():
                return Step(action.job_id, lambda _: self._fetcher.discard(action))
            case actions.RefuseStale():
                session = self._sessions.get(action.worker)
                worker = session.worker if session else None
                self._observer.stale(worker, action.message, action.job_id)
                return Step("", nothing)
            case actions.CancelOnWorker():
                return self._message(action, worker_messages.cancel_message(action))
            case actions.Release():
                return self._message(action, worker_messages.release_message(action))
            case actions.ReturnGrants():
                session = self._sessions.get(action.worker, action.incarnation)
                return Step("", sender(session, worker_messages.return_message(action)))
            case actions.Quarantine():
                message = stage_pb2.WorkRequest(
                    quarantine=stage_pb2.Quarantine(reason=action.reason)
                )
                return Step("", sender(self._sessions.get(action.worker), message))

    def _waiting(
        self, job_id: str, work: Coroutine[Any, Any, Any], carry_out: Callable[[Any], None]
    ) -> Step:
        task = asyncio.create_task(work)
        task.add_done_callback(lambda _: self._pump())
        return Step(job_id, carry_out, task)

    def _message(
        self, action: actions.CancelOnWorker | actions.Release, message: stage_pb2.WorkRequest
    ) -> Step:
        return Step(action.job_id, sender(self._sessions.get(action.worker), message))

    def _assign(self, action: actions.Assign) -> Step:
        job = self._jobs[action.job_id]
        session = self._sessions.get(action.worker, action.incarnation)

        def carry_out(images: Any) -> None:
            message = worker_messages.assignment_message(
                action,
                generation=job.generation,
                images=images or (),
                deadline=job.deadline,
                traceparent=job.traceparent,
                tenant=job.tenant,
            )
            failpoints.reach(f"gateway.assign.{action.stage.name.lower()}")
            sender(session, message)(None)

        if not job.has_images:
            return Step(action.job_id, carry_out)
        return self._waiting(action.job_id, self._images(action.job_id), carry_out)

    async def _images(self, job_id: str) -> tuple[InputImage, ...]:
        """Return a job's images; wait while the store is away, as the changes before them do."""
        while True:
            try:
                return await self._store.images(job_id)
            except UnavailableError:
                await asyncio.sleep(_RETRY_SECONDS)

    def _send(self, action: actions.Send) -> Step:
        receiver = self._sessions.get(action.to, action.to_incarnation)
        if receiver is None:
            return Step("", nothing)
        message = worker_messages.send_message(
            action, receiver.worker.address, self._jobs[action.output.job_id].traceparent
        )
        session = self._sessions.get(action.worker, action.incarnation)
        return Step(action.output.job_id, sender(session, message))

    async def _commit(self, work: Coroutine[Any, Any, JobEvent]) -> JobEvent:
        begin = time.perf_counter()
        failpoints.reach("gateway.commit.before")
        event = await work
        failpoints.reach("gateway.commit.after")
        self._observer.committed(time.perf_counter() - begin)
        return event

    def _saved(self, event: JobEvent) -> None:
        job = self._jobs.get(event.job_id)
        if job is not None:
            self._observer.job_changed(job, event.state, event.stage_status, event.attempt)
            self._fleet.changed(event.job_id, event.state, event.attempt, self._clock())
            if event.state.ended:
                del self._jobs[event.job_id]
                self._observer.job_ended(event.job_id, job, time=event.time, message=event.message)
        self._watchers.publish(event)
