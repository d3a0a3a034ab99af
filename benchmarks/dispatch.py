"""What one decision of the dispatcher costs, and how that grows with the fleet.

    python benchmarks/dispatch.py [--workers 100 1000 10000] [--jobs 30000] [--profile]

Drives the dispatcher itself with a fleet and a clock that are not real: encoders, DiTs and decoders
as 5 : 90 : 5, a third of each in a pool that takes twice as long, with service times by kind of job
and hand-overs that take time. A new job comes whenever one ends, so that jobs wait all the time.
Nothing is drawn at random: the same command makes the same decisions.

The events are recorded, and given to a new dispatcher once more without anything beside it. For
each size of fleet that gives the processor time per event, per assignment and per job, with what
`next_wakeup` takes; the workers looked at for each assignment are counted. Exits with 1 if a job
takes more than three times as long in the largest fleet as in the smallest.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import heapq
import itertools
import json
import pstats
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field

from rich.console import Console
from rich.table import Table

from disagfusion.dispatch import actions, events
from disagfusion.dispatch.dispatcher import Dispatcher
from disagfusion.dispatch.settings import DispatchSettings, QueueOrder
from disagfusion.jobs.model import Output, Stage

SHARES = {Stage.ENCODER: 5, Stage.DIT: 90, Stage.DECODER: 5}
SECONDS = {Stage.ENCODER: 4.5, Stage.DIT: 90.0, Stage.DECODER: 4.5}
KINDS = {"small": 0.5, "medium": 1.0, "large": 1.5}
POOLS = {"fast": 0.75, "slow": 1.5}
JITTER = 0.05
_GOLDEN = (5**0.5 - 1) / 2
"""Its multiples are spread evenly over the numbers between 0 and 1."""
SLOTS = 2
TRANSFER_SECONDS = 0.1
BYTES = 20_000_000
MEDIA = (Output(0, "image/png", 1, 1, 1, 1, ""),)
ACCEPTED_GROWTH = 3.0


@dataclass(frozen=True)
class Cost:
    """Of one size of fleet; times in microseconds of processor time."""

    workers: int
    jobs: int
    events_per_job: float
    microseconds_per_event: float
    microseconds_per_assignment: float
    microseconds_per_job: float
    examined_per_assignment: float
    busy_share: float


@dataclass(slots=True, eq=False)
class Task:
    """One stage of a job on a worker."""

    job_id: str
    attempt: int
    received: bool


@dataclass(slots=True, eq=False)
class Worker:
    """A worker that needs time."""

    info: events.WorkerInfo
    stage: Stage
    speed: float
    tasks: deque[Task] = field(default_factory=deque)
    running: bool = False


class Fleet:
    """Workers, a clock, and a dispatcher.

    Args:
        workers: How many.
        jobs: How many to do.
        settings: The dispatcher's.

    Attributes:
        told: The events that the dispatcher was given, and when.
        assignments: How many it made.
        worked: Seconds that DiTs have computed.
        ended: Jobs that were done.
        dispatcher: What is measured.
    """

    def __init__(self, workers: int, jobs: int, settings: DispatchSettings) -> None:
        self.now = 0.0
        self.told: list[tuple[events.Event, float]] = []
        self.assignments = 0
        self.worked = 0.0
        self.ended = 0
        self._jobs = jobs
        self._submitted = 0
        self.dispatcher = Dispatcher(settings, now=0.0)
        self._workers: dict[str, Worker] = {}
        self._timeline: list[tuple[float, int, Callable[[], None]]] = []
        self._serial = itertools.count()
        self._queue: deque[events.Event] = deque()
        self._wakeup = float("inf")
        for stage, share in SHARES.items():
            for number in range(max(1, workers * share // 100)):
                self._connect(stage, number)

        for _ in range(min(jobs, 3 * len(self._workers))):
            self._submit()
        self._deliver()

    def run(self) -> None:
        """Do all the jobs."""
        while self.ended < self._jobs:
            self.step()

    def step(self) -> None:
        """Do what comes next."""
        self.now, _, action = heapq.heappop(self._timeline)
        action()
        self._deliver()

    def _connect(self, stage: Stage, number: int) -> None:
        pool = "slow" if number % 3 == 2 else "fast"
        info = events.WorkerInfo(
            name=f"{stage.name.lower()}-{number}",
            incarnation="1",
            stages=frozenset({stage}),
            pipeline="p",
            version="v",
            state=events.WorkerState.READY,
            slots=SLOTS,
            pool=pool,
        )
        self._workers[info.name] = Worker(info, stage, POOLS[pool])
        self._queue.append(events.WorkerConnected(info, grant_ids=self._grants(SLOTS)))

    def _grants(self, count: int) -> tuple[str, ...]:
        return tuple(str(next(self._serial)) for _ in range(count))

    def _submit(self) -> None:
        if self._submitted < self._jobs:
            self._submitted += 1
            kind = _kind(str(self._submitted))
            self._queue.append(events.JobSubmitted(str(self._submitted), "t", "p", cost_key=kind))

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._timeline, (self.now + seconds, next(self._serial), action))

    def _deliver(self) -> None:
        """Give the dispatcher what there is to tell, and do what it wants."""
        while self._queue:
            event = self._queue.popleft()
            self.told.append((event, self.now))
            for action in self.dispatcher.handle(event, self.now):
                self._carry_out(action)
        wakeup = self.dispatcher.next_wakeup()
        if wakeup is not None and wakeup < self._wakeup:
            self._wakeup = wakeup
            self._after(max(0.0, wakeup - self.now), lambda: self._tick(wakeup))

    def _tick(self, wakeup: float) -> None:
        if wakeup == self._wakeup:
            self._wakeup = float("inf")
            self._queue.append(events.Tick())

    def _carry_out(self, action: actions.Action) -> None:
        match action:
            case actions.Assign():
                self.assignments += 1
                worker = self._workers[action.worker]
                task = Task(action.job_id, action.attempt, action.source is None)
                worker.tasks.append(task)
                if task.received:
                    self._begin(worker)
                else:
                    self._after(TRANSFER_SECONDS, lambda: self._arrived(worker, task))
            case actions.FetchResult():
                self._queue.append(
                    events.ResultStored(action.output.job_id, action.attempt, action.media)
                )
            case actions.CompleteJob():
                self.ended += 1
                self._submit()
            case actions.RefuseStale() | actions.CancelOnWorker() | actions.Quarantine():
                raise AssertionError(f"nothing goes wrong here: {action}")

    def _arrived(self, worker: Worker, task: Task) -> None:
        task.received = True
        self._queue.append(
            events.InputReceived(
                worker.info.name,
                worker.info.incarnation,
                task.job_id,
                task.attempt,
                TRANSFER_SECONDS,
                BYTES,
            )
        )
        self._begin(worker)

    def _begin(self, worker: Worker) -> None:
        if worker.running or not worker.tasks or not worker.tasks[0].received:
            return
        worker.running = True
        task, info = worker.tasks[0], worker.info
        self._queue.append(
            events.StageStarted(
                info.name, info.incarnation, task.job_id, task.attempt, worker.stage
            )
        )
        seconds = SECONDS[worker.stage] * KINDS[_kind(task.job_id)] * worker.speed
        seconds *= 1.0 + JITTER * (2.0 * (int(task.job_id) * _GOLDEN % 1.0) - 1.0)
        if worker.stage is Stage.DIT:
            self.worked += seconds
        self._after(seconds, lambda: self._finish(worker))

    def _finish(self, worker: Worker) -> None:
        worker.running = False
        task, info = worker.tasks.popleft(), worker.info
        key = events.OutputKey(task.job_id, worker.stage, task.attempt)
        media = MEDIA if worker.stage is Stage.DECODER else ()
        held = events.HeldOutput(key, BYTES, media)
        self._queue.append(events.StageDone(info.name, info.incarnation, held))
        self._queue.append(events.GrantsOffered(info.name, info.incarnation, self._grants(1)))
        self._begin(worker)


def _kind(job_id: str) -> str:
    return list(KINDS)[int(job_id) % len(KINDS)]


def measure(
    workers: int, jobs: int, settings: DispatchSettings, profile: cProfile.Profile | None = None
) -> Cost:
    """Return what decisions cost with so many workers.

    Args:
        workers: How many.
        jobs: How many to do; at least three for each worker.
        settings: The dispatcher's.
        profile: Where the time went.
    """
    jobs = max(jobs, 3 * workers)
    fleet = Fleet(workers, jobs, settings)
    fleet.run()
    dispatcher = Dispatcher(settings, now=0.0)
    told = fleet.told
    gc.collect()
    gc.freeze()
    if profile is not None:
        profile.enable()
    begin = time.process_time()
    for event, now in told:
        dispatcher.handle(event, now)
        dispatcher.next_wakeup()
    microseconds = (time.process_time() - begin) * 1e6
    if profile is not None:
        profile.disable()
    gc.unfreeze()
    dits = max(1, workers * SHARES[Stage.DIT] // 100)
    return Cost(
        workers=workers,
        jobs=jobs,
        events_per_job=len(told) / jobs,
        microseconds_per_event=microseconds / len(told),
        microseconds_per_assignment=microseconds / fleet.assignments,
        microseconds_per_job=microseconds / jobs,
        examined_per_assignment=dispatcher.examined / fleet.assignments,
        busy_share=fleet.worked / (dits * fleet.now),
    )


def table(costs: list[Cost]) -> Table:
    found = Table(
        "workers", "jobs", "µs/event", "µs/assignment", "µs/job", "looked at", "DiTs busy"
    )
    for cost in costs:
        found.add_row(
            f"{cost.workers:,}",
            f"{cost.jobs:,}",
            f"{cost.microseconds_per_event:.1f}",
            f"{cost.microseconds_per_assignment:.1f}",
            f"{cost.microseconds_per_job:.0f}",
            f"{cost.examined_per_assignment:.1f}",
            f"{cost.busy_share:.0%}",
        )
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--workers", type=int, nargs="+", default=[100, 1000, 10_000])
    parser.add_argument("--jobs", type=int, default=30_000)
    parser.add_argument("--order", choices=["submission", "shortest"], default="submission")
    parser.add_argument("--profile", action="store_true", help="of the largest fleet")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    order: QueueOrder = arguments.order
    settings = DispatchSettings(queue_order=order)
    profile = cProfile.Profile() if arguments.profile else None
    costs = [
        measure(
            workers,
            arguments.jobs,
            settings,
            profile if workers == max(arguments.workers) else None,
        )
        for workers in sorted(arguments.workers)
    ]
    growth = costs[-1].microseconds_per_job / costs[0].microseconds_per_job
    if arguments.json:
        print(json.dumps({"costs": [asdict(cost) for cost in costs], "growth": growth}, indent=2))
    else:
        console = Console()
        console.print(table(costs))
        console.print(f"growth of a job's time: {growth:.2f} ×")
    if profile is not None:
        pstats.Stats(profile).sort_stats("tottime").print_stats(45)
    return 0 if growth <= ACCEPTED_GROWTH else 1


if __name__ == "__main__":
    sys.exit(main())
