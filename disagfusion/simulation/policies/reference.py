"""The rule of DisagFusion's public reference implementation, created again from its description.

Each stage has a demand in seconds. `predict` takes the seconds from a frozen table and counts, for
every unfinished job, all the stages that it still has before it. `feedback` takes them from an
exponential average of what was measured and counts what runs in a stage or waits for it. `both`,
the default, counts like `predict` with the seconds of `feedback` where they were measured.

Replicas are shared out in proportion to the demands by largest remainder, at least one for each
stage; an encoder stays alone while its share is below 0.4; a pipeline with more than four DiTs has
two decoders at least while the DiT's demand is less than four times the decoder's. One replica
changes its stage at a time, the one with least to do, and only if it is idle. The clamp on the
encoder holds for pipelines with a decoder: the published answer for two stages has 21 encoders.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from disagfusion.scheduling.decision import Decision, Move, Place, Reason
from disagfusion.scheduling.observation import Fresh, JobGroup, Observation, Predictor
from disagfusion.simulation.policies.bounds import Bounds

Mode = Literal["predict", "feedback", "both"]
_AVERAGE_WEIGHT = 0.2
_COOLDOWN_SECONDS = 15.0
_ENCODER_SHARE = 0.4
_DECODER_RATIO = 4.0
_MANY_DITS = 4


@dataclass(frozen=True, slots=True)
class State:
    """What the rule remembers.

    Attributes:
        seconds: Stage → exponential average of measured seconds.
        changed: When something was changed last.
    """

    seconds: tuple[tuple[str, float], ...] = ()
    changed: float = float("-inf")


class Reference:
    """The rule for stages that each run on one and the same pool.

    Args:
        stages: In the order of the pipeline.
        pool: Where all of them run.
        predictor: The table of seconds.
        bounds: How many replicas a stage may have.
        mode: What demands are made of.
    """

    period = 2.0

    def __init__(
        self,
        stages: tuple[str, ...],
        pool: str,
        predictor: Predictor,
        bounds: Bounds,
        mode: Mode = "both",
    ) -> None:
        self.name = "reference" if mode == "both" else mode
        self._stages = stages
        self._pool = pool
        self._predictor = predictor
        self._bounds = bounds
        self._mode = mode

    def initial(self) -> State:
        """Return the state to begin with."""
        return State()

    def decide(self, state: State, observation: Observation, now: float) -> tuple[State, Decision]:
        """Decide what should be done; see `Balancer`."""
        averages = dict(state.seconds)
        for stage in self._stages:
            measured = observation.loads[stage].seconds
            if isinstance(measured, Fresh):
                old = averages.get(stage, measured.value)
                averages[stage] = old + _AVERAGE_WEIGHT * (measured.value - old)
        state = State(tuple(averages.items()), state.changed)
        if not isinstance(observation.jobs, Fresh) or not observation.jobs.value:
            return state, Decision(now, (), Reason.NO_DEMAND)
        if now - state.changed < _COOLDOWN_SECONDS:
            return state, Decision(now, (), Reason.RATE_LIMITED)
        demands = self._demands(observation.jobs.value, averages)
        committed = {
            stage: observation.replicas[stage][self._pool].committed for stage in self._stages
        }
        wanted = share_out(list(demands.values()), sum(committed.values()))
        if self._mode == "feedback" and len(wanted) > 2 and wanted[0] > 1:
            wanted[1] += wanted[0] - 1
            wanted[0] = 1
        target = dict(zip(self._stages, wanted, strict=True))
        move = self._move(observation, committed, target)
        if move is None:
            return state, Decision(now, (), Reason.BALANCED)
        state = State(state.seconds, now)
        return state, Decision(now, (move,), Reason.REBALANCE, str(target))

    def _demands(self, jobs: tuple[JobGroup, ...], averages: dict[str, float]) -> dict[str, float]:
        demands = dict.fromkeys(self._stages, 0.0)
        for group in jobs:
            ahead = self._stages[group.stage :]
            for stage in ahead[:1] if self._mode == "feedback" else ahead:
                seconds = self._predictor.seconds(stage, self._pool, group.shape)
                if self._mode != "predict":
                    seconds = averages.get(stage, seconds)
                demands[stage] += group.count * seconds
        return demands

    def _move(
        self, observation: Observation, committed: dict[str, int], target: dict[str, int]
    ) -> Move | None:
        """Return one replica's change from the stage with most too many, if one there is idle."""
        spare = {stage: committed[stage] - target[stage] for stage in self._stages}
        short = [
            stage
            for stage in sorted(self._stages, key=lambda stage: spare[stage])
            if spare[stage] < 0 and committed[stage] < self._bounds.most(stage)
        ]
        if not short:
            return None
        to = short[0]
        for stage in sorted(self._stages, key=lambda stage: -spare[stage]):
            counts = observation.replicas[stage][self._pool]
            assert isinstance(observation.jobs, Fresh), "checked before"
            running = sum(
                group.count
                for group in observation.jobs.value
                if group.pool and not group.draining and self._stages[group.stage] == stage
            )
            idle = spare[stage] > 0 and counts.ready > max(1, running)
            if idle and self._bounds.can_change(stage, to, observation):
                return Move(Place(stage, self._pool), Place(to, self._pool))
        return None


def share_out(demands: list[float], replicas: int) -> list[int]:
    """Return how many replicas each stage gets, at least one.

    Args:
        demands: Seconds by stage; the DiT is the second of three.
        replicas: How many there are.
    """
    total = sum(demands)
    exact = [replicas * demand / total for demand in demands]
    shares = [max(1, int(one)) for one in exact]
    by_remainder = sorted(range(len(demands)), key=lambda stage: int(exact[stage]) - exact[stage])
    for stage in by_remainder * replicas:
        if sum(shares) >= replicas:
            break
        shares[stage] += 1
    while sum(shares) > replicas and max(shares) > 1:
        shares[shares.index(max(shares))] -= 1
    if len(shares) > 2:
        if demands[0] / total < _ENCODER_SHARE:
            shares[1] += shares[0] - 1
            shares[0] = 1
        few = demands[1] < _DECODER_RATIO * demands[2] and shares[1] > _MANY_DITS
        if few and shares[2] < 2:
            shares[1] -= 1
            shares[2] += 1
    return shares
