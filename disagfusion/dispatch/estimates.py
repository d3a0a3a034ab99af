"""How long a stage will take: by pool and kind of job, and by how a worker differs from its pool.

The workers of a pool have the same kind of accelerator. So what one of them took predicts the
others, times a *factor* of each worker's own, which takes one of few values: a tenth more or less
is no reason to prefer a worker over one whose turn it is. A worker that names no pool is a pool by
itself (`tables` names it), and has no factor.

A prediction falls back from (pool, stage, cost key) to the prior for pool, stage and job, to
(stage, cost key), to (pool, stage), to (stage), to a constant. The first two are *known*.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

from disagfusion.dispatch.events import JobSubmitted
from disagfusion.jobs.model import Stage

Prior = Callable[[str, Stage, JobSubmitted], float | None]
"""Predicts the seconds of a stage on a pool (empty: not named) before any were observed; None
where it cannot say. Jobs with one cost key get one answer."""

_WEIGHT = 0.25
_MAX_KINDS = 1024
_MAX_POOLS = 512
_EVERYWHERE = "*"
_CONSTANTS = {Stage.ENCODER: 0.05, Stage.DIT: 1.0, Stage.DECODER: 0.1}

_STEP = 1.1
"""Between two values of a factor."""
_INERTIA = 0.75
"""Steps that a worker must be off its factor's value before it gets another."""
_MAX_RATIO = 8.0
_MAX_SURPRISE = 2.0
"""Of one observation over its prediction, for the worker's factor: jobs may straggle."""
_MAX_POOL_SURPRISE = 1.25
"""The same for the pool's average: one worker's trouble is not its pool's."""


Prediction = tuple[float, bool]
"""Seconds, and whether they rest on this pool's own jobs of the same kind, or on the prior."""


class Pace:
    """How many times as long as its pool a worker takes for a stage."""

    __slots__ = ("_level", "factor", "ratio")

    def __init__(self) -> None:
        self.ratio = self.factor = 1.0
        self._level = 0

    def change(self, by: float) -> None:
        """Let the ratio be this many times what it was, and the factor follow."""
        self.ratio = min(_MAX_RATIO, max(1.0 / _MAX_RATIO, self.ratio * by))
        exact = math.log(self.ratio) / math.log(_STEP)
        if abs(exact - self._level) > _INERTIA:
            self._level = round(exact)
            self.factor = _STEP**self._level


class PoolStage:
    """What was learned of a stage on one pool, or over all of a pipeline.

    Attributes:
        pool: For the prior.
        stage: The stage.
        everywhere: Over all pools; None: this is over all of them.
        users: Groups of workers, or pools, that refer to this.
        kinds: Moving averages by cost key, the least recently updated first.
        overall: Moving average over all kinds.
        priors: By cost key, what the prior has said.
    """

    __slots__ = ("everywhere", "kinds", "overall", "pool", "priors", "stage", "users")

    def __init__(self, pool: str, stage: Stage, everywhere: PoolStage | None) -> None:
        self.pool = pool
        self.stage = stage
        self.everywhere = everywhere
        self.users = 0
        if everywhere is not None:
            everywhere.users += 1
        self.kinds: OrderedDict[str, float] = OrderedDict()
        self.overall: float | None = None
        self.priors: dict[str, float | None] = {}

    def observe(self, kind: str, seconds: float, pace: Pace | None) -> None:
        """Take note of how long a job took, on a worker of this pace."""
        old = self.kinds.get(kind)
        if pace is None:
            new = seconds if old is None else old + _WEIGHT * (seconds - old)
        elif old is None or old <= 0.0:
            new = seconds / pace.ratio
        else:
            surprise = seconds / (old * pace.ratio)
            new = old * (1.0 + _WEIGHT * (min(surprise, _MAX_POOL_SURPRISE) - 1.0))
            pace.change(1.0 + _WEIGHT * (min(surprise, _MAX_SURPRISE) - 1.0))
        self.kinds[kind] = new
        self.kinds.move_to_end(kind)
        if len(self.kinds) > _MAX_KINDS:
            self.kinds.popitem(last=False)
        overall = self.overall
        self.overall = seconds if overall is None else overall + _WEIGHT * (seconds - overall)


class Estimates:
    """Service and transfer times, from what was observed.

    Args:
        prior: For what was not observed yet.
    """

    def __init__(self, prior: Prior | None = None) -> None:
        self._prior = prior
        self._pools: OrderedDict[tuple[str, str, Stage], PoolStage] = OrderedDict()
        self._overall: dict[Stage, float] = {}
        self._transfer: float | None = None

    def set_prior(self, prior: Prior | None) -> None:
        """Take another prior, or one whose answers have changed."""
        self._prior = prior
        for where in self._pools.values():
            where.priors.clear()

    def of(self, pipeline: str, name: str, stage: Stage, pool: str = "") -> PoolStage:
        """Return what is known of a stage of a pipeline on a pool.

        Args:
            pipeline: The pipeline.
            name: The pool's, or what stands for it: see `workers`.
            stage: The stage.
            pool: What the prior calls it.
        """
        key = (pipeline, name, stage)
        where = self._pools.get(key)
        if where is None:
            everywhere = None if name == _EVERYWHERE else self.of(pipeline, _EVERYWHERE, stage)
            where = self._pools[key] = PoolStage(pool, stage, everywhere)
            if len(self._pools) > _MAX_POOLS:
                self._forget_one()
        self._pools.move_to_end(key)
        return where

    def observe(
        self, where: PoolStage, kind: str, seconds: float, pace: Pace | None = None
    ) -> None:
        """Take note of how long a stage took once it ran."""
        if 0.0 <= seconds < math.inf:
            where.observe(kind, seconds, pace)
            old = self._overall.get(where.stage, seconds)
            self._overall[where.stage] = old + _WEIGHT * (seconds - old)
            if where.everywhere is not None:
                where.everywhere.observe(kind, seconds, None)

    def observe_transfer(self, seconds: float) -> None:
        """Take note of how long an input took to arrive."""
        if 0.0 <= seconds < math.inf:
            old = self._transfer
            self._transfer = seconds if old is None else old + _WEIGHT * (seconds - old)

    def service(self, where: PoolStage, job: JobSubmitted) -> Prediction:
        """Predict how long a stage of a job takes on a pool once it runs, at factor 1."""
        seconds = where.kinds.get(job.cost_key)
        if seconds is not None:
            return seconds, True
        if self._prior is not None:
            seconds = self._ask_prior(self._prior, where, job)
            if seconds is not None:
                return seconds, True
        everywhere = where.everywhere or where
        for value in (everywhere.kinds.get(job.cost_key), where.overall, everywhere.overall):
            if value is not None:
                return value, False
        return _CONSTANTS[where.stage], False

    def anywhere(self, stage: Stage, job: JobSubmitted) -> float:
        """Predict how long a stage of a job takes, wherever."""
        return self.service(self.of(job.pipeline, _EVERYWHERE, stage), job)[0]

    def mean_service(self, stage: Stage) -> float:
        """Return the average service time of a stage over everything."""
        value = self._overall.get(stage)
        return _CONSTANTS[stage] if value is None else value

    def transfer(self) -> float:
        """Return the average time an input takes to arrive; 0 before the first."""
        return self._transfer or 0.0

    def _forget_one(self) -> None:
        """Forget the pool that was asked for least recently of those that have no workers."""
        for key, where in list(self._pools.items())[:-1]:
            if not where.users:
                del self._pools[key]
                if where.everywhere is not None:
                    where.everywhere.users -= 1
                return

    def _ask_prior(self, prior: Prior, where: PoolStage, job: JobSubmitted) -> float | None:
        if job.cost_key in where.priors:
            return where.priors[job.cost_key]
        seconds = prior(where.pool, where.stage, job)
        if seconds is not None and not 0.0 <= seconds < math.inf:
            seconds = None
        if len(where.priors) >= _MAX_KINDS:
            where.priors.clear()
        where.priors[job.cost_key] = seconds
        return seconds
