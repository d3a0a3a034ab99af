"""What the dispatcher knows: tables, timers, and what it has learned."""

from __future__ import annotations

import enum

from disagfusion.dispatch.actions import Action
from disagfusion.dispatch.agenda import Agenda
from disagfusion.dispatch.estimates import Estimates, Prediction, Prior
from disagfusion.dispatch.flow import FlowTable
from disagfusion.dispatch.heap import RemovableHeap
from disagfusion.dispatch.links import Links
from disagfusion.dispatch.settings import DispatchSettings
from disagfusion.dispatch.tables import Assignment, JobEntry, JobTable
from disagfusion.dispatch.workers import WorkerEntry, WorkerTable

TOLERANCE = 1e-3
"""Seconds; far above the resolution of Unix time in a float, so that looking again at the
predicted time always finds the prediction come true."""


class TimerKind(enum.Enum):
    """What a timer is for."""

    DEADLINE = "deadline"
    RETRY = "retry"
    TRANSFER = "transfer"
    FETCH = "fetch"
    RECOVERY = "recovery"
    VERSION = "version"

    # Enum's own is a call in Python, for each look at a timer.
    __hash__ = object.__hash__


Timer = tuple[TimerKind, str]
"""A timer's kind and what it belongs to: a job id, or a version's name."""


class State:
    """Tables, timers, estimates and the list of actions under construction.

    Attributes:
        settings: How the dispatcher behaves.
        now: Unix seconds.
        estimates: How long stages take.
        links: How long tensors take.
        flows: Where jobs and workers meet, by pipeline.
        agenda: Which queues have to be looked at.
        jobs: The unfinished jobs.
        workers: The live workers.
        horizon: How long before it is free a worker may be given its next job, in seconds.
        touched: Workers that have changed since the last `settle`.
        examined: How many workers were looked at so far in order to choose one.
        timers: What is to be done when.
        actions: What is wanted, in order.
        assignments: How many were made.
    """

    def __init__(self, settings: DispatchSettings, now: float, prior: Prior | None = None) -> None:
        self.settings = settings
        self.now = now
        self.estimates = Estimates(prior)
        self.links = Links()
        self.flows = FlowTable()
        self.agenda = Agenda()
        self.jobs = JobTable(self.flows, self.agenda)
        self.workers = WorkerTable(self.flows, self.estimates, self.agenda)
        self.horizon = settings.prefetch_horizon
        self.examined = 0
        self.touched: dict[WorkerEntry, None] = {}
        self.timers: RemovableHeap[Timer] = RemovableHeap()
        self.actions: list[Action] = []
        self.assignments = 0

    def set_timer(self, kind: TimerKind, name: str, at: float) -> None:
        """Set a timer, in place of the former one of the same kind and name."""
        self.timers.push((kind, name), at)

    def clear_timer(self, kind: TimerKind, name: str) -> None:
        """Clear a timer if it is set."""
        self.timers.remove((kind, name))

    def touch(self, worker: WorkerEntry) -> None:
        """Take note that what a worker has, or may be given, has changed."""
        self.touched[worker] = None

    def settle(self) -> None:
        """Bring the order of the workers in line with what has become of them."""
        touched = self.touched
        while touched:
            worker, _ = touched.popitem()
            self.workers.settle(worker, self.now, self.horizon + TOLERANCE)

    def predict(self, job: JobEntry, worker: WorkerEntry) -> Prediction:
        """Predict how long a job's stage takes on a worker."""
        member = worker.members.get(job.stage)
        if member is None:
            # It does another stage by now, but not yet when this was assigned.
            return self.estimates.anywhere(job.stage, job.spec), False
        seconds, known = self.estimates.service(member.group.estimate, job.spec)
        return seconds * member.factor, known

    def expect_end(self, job: JobEntry, seconds: float) -> None:
        """Predict when a job's running stage will end."""
        assignment = job.assignment
        assert assignment is not None, "something runs"
        assignment.end = self.now + seconds
        self.touch(assignment.worker)

    def follow_steps(self, job: JobEntry, assignment: Assignment) -> None:
        """Predict the end of a running stage from the steps that were seen."""
        assert assignment.started_at is not None, "steps begin with the stage"
        steps = assignment.step - assignment.first_step
        if steps > 0 and assignment.num_inference_steps:
            per_step = (assignment.step_at - assignment.started_at) / steps
            left = max(0, assignment.num_inference_steps - assignment.step)
            assignment.known = True
            self.expect_end(job, left * per_step)

    def observe(self, job: JobEntry, assignment: Assignment, seconds: float) -> None:
        """Learn from how long a stage took."""
        member = assignment.worker.members.get(assignment.stage)
        if member is not None:
            estimate = member.group.estimate
            self.estimates.observe(estimate, job.spec.cost_key, seconds, member.pace)
            self.touch(assignment.worker)
            self.agenda.mark_awaiting(job.lane)

    def observe_transfer(self, job: JobEntry, receiver: str, nbytes: int, seconds: float) -> None:
        """Learn from how long a job's input took to arrive."""
        self.estimates.observe_transfer(seconds)
        self.horizon = max(self.settings.prefetch_horizon, 2.0 * self.estimates.transfer())
        if job.source is not None:
            self.links.observe(job.source.worker, receiver, nbytes, seconds, self.now)
            for lane in job.lane.flow.lanes:
                self.agenda.mark_awaiting(lane)
