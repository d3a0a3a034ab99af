"""The dispatcher against workers that die, disconnect, answer late, twice, out of order, or lie."""

from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from disagfusion.dispatch import actions as act
from disagfusion.dispatch import events as ev
from disagfusion.dispatch.dispatcher import Dispatcher
from disagfusion.dispatch.settings import DispatchSettings
from disagfusion.jobs.model import (
    FailureKind,
    JobState,
    Stage,
)
from dispatchkit.front import SLOTS, STEPS, Fronts, SimWorker, media_of
from dispatchkit.shell import Shell, Stored

SETTINGS = DispatchSettings()
WORKERS = {
    "encoder-0": {Stage.ENCODER},
    "encoder-1": {Stage.ENCODER},
    "dit-0": {Stage.DIT},
    "dit-1": {Stage.DIT},
    "decoder-0": {Stage.DECODER},
    "merged-0": {Stage.DIT, Stage.DECODER},
}
FAILURES = [kind for kind in FailureKind if kind is not FailureKind.INVALID_ARGUMENT]


NAMES = sorted(WORKERS)
PICK = st.integers(0, 10_000)
T = TypeVar("T")


class Nothing(Exception):
    """There is nothing to which this could happen."""


def choose(among: Sequence[T], pick: int) -> T:
    if not among:
        raise Nothing
    return among[pick % len(among)]


class World(Shell, Fronts, RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.now = 1_700_000_000.0
        self.workers = {
            name: SimWorker(name, frozenset(stages)) for name, stages in WORKERS.items()
        }
        self.store: dict[str, Stored] = {}
        self.decided: dict[str, Stored] = {}
        self.pending: deque[act.Action] = deque()
        self.told: dict[tuple[str, Stage, int], str] = {}
        self.produced: set[ev.OutputKey] = set()
        self.used_grants: set[tuple[str, str]] = set()
        self.succeeded: Counter[str] = Counter()
        self.results: set[tuple[str, int]] = set()
        self.orphans: set[tuple[str, int]] = set()
        self.fetches: deque[act.FetchResult] = deque()
        self.invalid: set[str] = set()
        self.dispatcher = Dispatcher(SETTINGS, now=self.now, expected_workers=WORKERS)
        for worker in self.workers.values():
            worker.start()
            self.give(worker.hello())

    # What happens.

    names = st.sampled_from(NAMES)

    @rule(priority=st.integers(-1, 1), timeout=st.none() | st.sampled_from([0.0, 5.0, 1000.0]))
    def submit(self, priority: int, timeout: float | None) -> None:
        job_id = f"job-{len(self.store)}"
        deadline = None if timeout is None else self.now + timeout
        spec = ev.JobSubmitted(job_id, "t", "p", priority, deadline, f"cost{priority}", STEPS)
        self.store[job_id], self.decided[job_id] = Stored(spec), Stored(spec)
        self.give(spec)

    @precondition(lambda self: any(w.inbox for w in self.workers.values()))
    @rule(pick=PICK, count=st.integers(1, 6))
    def deliver_down(self, pick: int, count: int) -> None:
        busy = [w for w in self.workers.values() if w.inbox]
        worker = choose(busy, pick)
        for _ in range(min(count, len(worker.inbox))):
            self.obey(worker)

    @precondition(lambda self: any(w.connected and w.outbox for w in self.workers.values()))
    @rule(pick=PICK, count=st.integers(1, 6), twice=st.booleans(), swap=st.booleans())
    def deliver_up(self, pick: int, count: int, twice: bool, swap: bool) -> None:
        talking = [w for w in self.workers.values() if w.connected and w.outbox]
        worker = choose(talking, pick)
        if swap and len(worker.outbox) > 1:
            worker.outbox[0], worker.outbox[1] = worker.outbox[1], worker.outbox[0]
        for _ in range(min(count, len(worker.outbox))):
            event = worker.outbox.popleft()
            self.give(event)
            if twice:
                self.give(event)

    @precondition(lambda self: any(w.tasks for w in self.workers.values()))
    @rule(pick=PICK, count=st.integers(1, 8))
    def progress(self, pick: int, count: int) -> None:
        busy = [w for w in self.workers.values() if w.tasks]
        worker = choose(busy, pick)
        for _ in range(count):
            for task in list(worker.tasks.values()):
                self.work(worker, task)

    # Jobs have to get somewhere before it is interesting what goes wrong.
    @rule(rounds=st.integers(1, 3))
    def flow(self, rounds: int) -> None:
        for _ in range(rounds):
            for worker in self.workers.values():
                for _ in range(len(worker.inbox)):
                    self.obey(worker)
                for task in list(worker.tasks.values()):
                    self.work(worker, task)
                for _ in range(len(worker.outbox) if worker.connected else 0):
                    self.give(worker.outbox.popleft())
        while len(self.fetches) > 1:
            self.fetch(None)
        self.commit(len(self.pending) // 2)

    @rule(rounds=st.integers(4, 8))
    def flow_on(self, rounds: int) -> None:
        self.flow(rounds)

    @precondition(lambda self: self.pending)
    @rule(count=st.integers(1, 20))
    def becomes_durable(self, count: int) -> None:
        self.commit(count)

    @rule(failure=st.none() | st.sampled_from(ev.ResultFailure))
    @precondition(lambda self: self.fetches)
    def results_arrive(self, failure: ev.ResultFailure | None) -> None:
        if self.fetches:
            self.fetch(failure)

    @rule(pick=PICK, kind=st.sampled_from(FAILURES), invalid=st.integers(0, 9))
    @precondition(lambda self: any(w.tasks for w in self.workers.values()))
    def stage_fails(self, pick: int, kind: FailureKind, invalid: int) -> None:
        tasks = [(w, t) for w in self.workers.values() for t in w.tasks.values()]
        worker, task = choose(tasks, pick)
        if invalid == 0:
            kind = FailureKind.INVALID_ARGUMENT
            self.invalid.add(task.job_id)
        worker.fail(task, kind)

    @rule(name=names)
    def kill(self, name: str) -> None:
        worker = self.workers[name]
        lost = worker.incarnation
        worker.start()
        self.give(ev.WorkerDisconnected(name, lost))

    @rule(name=names)
    def disconnect(self, name: str) -> None:
        worker = self.workers[name]
        if worker.connected:
            worker.connected = False
            worker.inbox.clear()
            self.give(ev.WorkerDisconnected(name, worker.incarnation))

    @rule(name=names)
    def give_up(self, name: str) -> None:
        """The grace of a worker that is cut off is over; it may come back all the same."""
        worker = self.workers[name]
        if not worker.connected:
            self.give(ev.WorkerLost(name, worker.incarnation, "silent"))

    @rule(name=names)
    def reconnect(self, name: str) -> None:
        worker = self.workers[name]
        if not worker.connected:
            self.give(worker.hello())

    @rule(name=names)
    def lose_held(self, name: str) -> None:
        self.workers[name].held.clear()

    @rule()
    def restart_gateway(self) -> None:
        self.crash()
        # Its start cleans up what was stored for jobs that had not ended.
        self.results = {key for key in self.results if self.succeeded[key[0]]}
        for worker in self.workers.values():
            worker.connected = False
            worker.inbox.clear()
            worker.outbox.clear()
        self.dispatcher = Dispatcher(SETTINGS, now=self.now, expected_workers=WORKERS)
        self.recover_all()

    def recover_all(self, *, contested: bool = False) -> None:
        for job in self.store.values():
            if not job.state.ended:
                place = (job.state, job.status, job.attempt, job.version, job.failures)
                self.give(ev.JobRecovered(job.spec, *place, contested))

    @rule()
    def another_gateway_takes_over(self) -> None:
        """One that the workers are connected to already, and that knows none of the jobs."""
        # Of results that the other one has stored nobody knows: the next start cleans them up.
        self.orphans |= {key for key in self.results if not self.succeeded[key[0]]}
        self.crash()
        self.dispatcher = Dispatcher(SETTINGS, now=self.now)
        connected = [worker for worker in self.workers.values() if worker.connected]
        for worker in connected:
            hello = worker.hello()
            self.give(hello._replace(running=(), held=()))
            worker.say(ev.HandedOver, hello.running, hello.held)
        self.give(ev.TakeOverBegun(frozenset(worker.name for worker in connected)))
        self.recover_all(contested=True)

    @rule(pick=PICK)
    @precondition(lambda self: self.store)
    def cancel(self, pick: int) -> None:
        job_id = choose(sorted(self.store), pick)
        self.give(ev.CancelRequested(job_id, "unwanted"))

    @rule(pick=PICK, name=names, attempt=st.integers(0, 9), stage=st.sampled_from(Stage))
    @precondition(lambda self: self.store)
    def lie(self, pick: int, name: str, attempt: int, stage: Stage) -> None:
        """Speak of an attempt that the worker does not have."""
        job_id = choose(sorted(self.store), pick)
        worker = self.workers[name]
        if not worker.connected or (job_id, attempt) in worker.tasks:
            return
        incarnation = choose([worker.incarnation, "other"], pick)
        key = ev.OutputKey(job_id, stage, attempt)
        job = self.dispatcher._core.jobs.get(job_id)
        known = self.dispatcher._core.workers.get(name)
        if key in self.produced or (job and known and job.assigned_to(known, None, attempt)):
            return  # such a lie cannot be told from the truth
        held = ev.HeldOutput(key, 1, media_of(key))
        lies: list[ev.Event] = [
            ev.InputReceived(name, incarnation, job_id, attempt),
            ev.StageStarted(name, incarnation, job_id, attempt, stage),
            ev.StepCompleted(name, incarnation, job_id, attempt, 1, STEPS),
            ev.StageDone(name, incarnation, held),
            ev.StageFailed(name, incarnation, job_id, attempt, stage, FailureKind.INTERNAL),
            ev.SendFailed(name, incarnation, key, attempt, True),
            ev.OutputSent(name, incarnation, key, attempt),
            ev.ResultFailed(job_id, attempt, ev.ResultFailure.LOST),
        ]
        self.give(choose(lies, pick // 7))

    @rule(seconds=st.sampled_from([0.01, 0.3, 3.0, 40.0]))
    def wait(self, seconds: float) -> None:
        self.advance(self.now + seconds)

    def advance(self, until: float) -> None:
        for _ in range(1000):
            at = self.dispatcher.next_wakeup()
            if at is None or at > until:
                break
            self.now = max(self.now, at)
            self.give(ev.Tick())
        else:
            raise AssertionError("wakes up without end")
        self.now = until

    # What must hold.

    def teardown(self) -> None:
        if not hasattr(self, "workers"):
            return
        for worker in self.workers.values():
            if worker.condemned:
                self.kill(worker.name)
            if not worker.connected:
                self.give(worker.hello())
        for _ in range(3000):
            if not self.settle_once():
                at = self.dispatcher.next_wakeup()
                if at is None:
                    break
                self.advance(max(self.now, at))
        self.check_end()

    def settle_once(self) -> bool:
        moved = bool(self.pending)
        self.commit(len(self.pending))
        for worker in self.workers.values():
            if worker.condemned:
                self.kill(worker.name)
                self.give(worker.hello())
                moved = True
            while worker.inbox:
                self.obey(worker)
                moved = True
            for task in list(worker.tasks.values()):
                before = replace(task)
                self.work(worker, task)
                moved = moved or task != before or (task.job_id, task.attempt) not in worker.tasks
            while worker.outbox:
                self.give(worker.outbox.popleft())
                moved = True
        while self.fetches:
            self.fetch(None)
            moved = True
        return moved

    def check_end(self) -> None:
        for job_id, job in self.store.items():
            assert job.state.ended, f"{job_id} is lost: {job}"
            assert self.succeeded[job_id] == (job.state is JobState.SUCCEEDED)
            if job.state is JobState.FAILED and job_id not in self.invalid:
                assert job.attempt >= SETTINGS.max_attempts
            if job.state is JobState.SUCCEEDED:
                assert (job_id, job.attempt) in self.results
        for worker in self.workers.values():
            assert not worker.tasks, f"{worker.name} still works"
            assert not worker.held, f"{worker.name} still holds {list(worker.held)}"
            assert len(worker.grants) == SLOTS
            known = self.dispatcher._core.workers.get(worker.name)
            assert known is not None
            assert set(known.grants) == worker.grants
            assert not known.assignments
            assert not known.holding
        core = self.dispatcher._core
        assert len(core.jobs) == 0
        assert not core.jobs.queues()
        assert all(not any(flow._counts) and not flow.kinds for flow in core.flows)
        assert not core.jobs._tenants
        assert len(core.timers) == 0
        succeeded = {key for key in self.results if self.succeeded[key[0]]}
        assert self.results - succeeded <= self.orphans
