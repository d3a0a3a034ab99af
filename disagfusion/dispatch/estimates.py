"""How long a stage will take: running averages by worker and kind of job."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

from disagfusion.jobs.model import Stage

_WEIGHT = 0.25
_MAX_KEYS = 4096
_PRIOR_SECONDS = {Stage.ENCODER: 0.05, Stage.DIT: 1.0, Stage.DECODER: 0.1}


@dataclass(frozen=True, slots=True)
class Prediction:
    """Seconds, and whether they rest on this worker's own jobs of the same kind."""

    seconds: float
    known: bool


class _Averages:
    """Exponential moving averages; the least recently updated are forgotten."""

    def __init__(self) -> None:
        self._values: OrderedDict[Hashable, float] = OrderedDict()

    def observe(self, key: Hashable, value: float) -> None:
        old = self._values.get(key)
        self._values[key] = value if old is None else old + _WEIGHT * (value - old)
        self._values.move_to_end(key)
        if len(self._values) > _MAX_KEYS:
            self._values.popitem(last=False)

    def get(self, key: Hashable) -> float | None:
        return self._values.get(key)


class Estimates:
    """Service and transfer times, from what was observed.

    A prediction falls back from (worker, stage, cost key) to (stage, cost key), to
    (worker, stage), to (stage), to a constant.
    """

    def __init__(self) -> None:
        self._service = _Averages()
        self._transfer = _Averages()

    def observe_service(self, worker: str, stage: Stage, cost_key: str, seconds: float) -> None:
        """Take note of how long a stage took once it ran."""
        if not seconds >= 0.0:
            return
        for key in ((worker, stage, cost_key), (stage, cost_key), (worker, stage), (stage,)):
            self._service.observe(key, seconds)

    def observe_transfer(self, seconds: float) -> None:
        """Take note of how long an input took to arrive."""
        if seconds >= 0.0:
            self._transfer.observe("", seconds)

    def service(self, worker: str, stage: Stage, cost_key: str) -> Prediction:
        """Predict how long a stage of a job takes on a worker once it runs."""
        own = self._service.get((worker, stage, cost_key))
        if own is not None:
            return Prediction(own, known=True)
        for key in ((stage, cost_key), (worker, stage), (stage,)):
            value = self._service.get(key)
            if value is not None:
                return Prediction(value, known=False)
        return Prediction(_PRIOR_SECONDS[stage], known=False)

    def mean_service(self, stage: Stage) -> float:
        """Return the average service time of a stage over everything."""
        value = self._service.get((stage,))
        return _PRIOR_SECONDS[stage] if value is None else value

    def transfer(self) -> float:
        """Return the average time an input takes to arrive; 0 before the first."""
        return self._transfer.get("") or 0.0
