"""Carries decisions out in the embedded system: starts, stops and changes of stage in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from disagfusion.balancing.control import SupervisorControl
from disagfusion.balancing.instances import Instance, Phase, instances, victim
from disagfusion.balancing.learner import Learner
from disagfusion.balancing.signals import EmbeddedSignals
from disagfusion.errors import DisagfusionError
from disagfusion.local.plan import ProcessState, ProcessStatus
from disagfusion.pipeline.stages import Stage
from disagfusion.rpc.calls import translated
from disagfusion.rpc.channel import open_channel
from disagfusion.rpc.tls import TlsSettings
from disagfusion.scheduling.decision import Decision, Move, Place
from disagfusion.scheduling.ports import Actuator
from disagfusion.scheduling.profile import Profile
from disagfusion.stage.numbers import stage_number
from disagfusion.telemetry.logging import get_logger
from disagfusion.v1 import stage_pb2
from disagfusion.v1.stage_pb2_grpc import StageServiceStub

_log = get_logger(__name__)


class LocalActuator(Actuator):
    """Has the supervisor start and stop processes, and workers change their stage.

    What a worker is to be is told to the supervisor first: one that dies while it changes comes
    back as what it was to become.

    Args:
        signals: Know the workers, by the last observation.
        control: To the supervisor.
        profile: Accelerators that replicas take.
        addresses: Of every worker.
        pools: Of every worker.
        learner: Predicts who will have done soonest.
        waiting: Where starts that wait for room are kept.
        budget: Accelerators in use at most.
        time_scale: Real seconds for one of the learner's.
        patience: Seconds that an answer may take.
        tls: Of the workers' ports.
    """

    def __init__(
        self,
        signals: EmbeddedSignals,
        control: SupervisorControl,
        profile: Profile,
        addresses: Mapping[str, str],
        pools: Mapping[str, str],
        learner: Learner,
        waiting: list[Place],
        *,
        budget: int,
        time_scale: float,
        patience: float,
        tls: TlsSettings | None,
    ) -> None:
        self._signals = signals
        self._control = control
        self._profile = profile
        self._addresses = addresses
        self._pools = pools
        self._learner = learner
        self._waiting = waiting
        self._budget = budget
        self._scale = time_scale
        self._patience = patience
        self._tls = tls

    async def carry_out(self, decision: Decision, now: float) -> None:
        """See `Actuator`."""
        fleet = list(self._signals.instances)
        try:
            for one in fleet:
                if one.unheard:
                    await self._tell(one.name, Stage(one.wanted))
            for move in decision.moves:
                for _ in range(move.count):
                    fleet = await self._begin(move, fleet)
            await self._start_waiting()
        except DisagfusionError as error:
            _log.error("not carried out", reason=decision.reason.name, problem=error.message)

    async def _begin(self, move: Move, fleet: list[Instance]) -> list[Instance]:
        """Begin a move of one replica; return those that are not concerned by it."""
        if move.cancel:
            assert move.source is not None, "what starts, starts somewhere"
            return await self._cancel(move.source, fleet)
        if move.source is None:
            assert move.target is not None, "a move has an end at least"
            self._waiting.append(move.target)
            return fleet
        ready = [one for one in fleet if one.place == move.source and one.phase is Phase.READY]
        chosen = victim(ready, self._learner.predictor, self._scale)
        if chosen is None:
            _log.warning("nobody to move", stage=move.source.stage, pool=move.source.pool)
            return fleet
        target = move.target
        if target is not None and target.pool == move.source.pool:
            await self._control.assign(chosen.name, target.stage)
            await self._tell(chosen.name, Stage(target.stage))
        else:
            await self._control.stop(chosen.name)
            if target is not None:
                self._waiting.append(target)
        return [one for one in fleet if one is not chosen]

    async def _cancel(self, place: Place, fleet: list[Instance]) -> list[Instance]:
        """Take back a start: one that waits for room, or the youngest that loads."""
        if place in self._waiting:
            self._waiting.remove(place)
            return fleet
        starting = [one for one in fleet if one.place == place and one.phase is Phase.STARTING]
        if not starting:
            return fleet
        youngest = min(starting, key=lambda one: one.seconds)
        await self._control.stop(youngest.name)
        return [one for one in fleet if one is not youngest]

    async def _tell(self, name: str, stage: Stage) -> None:
        """Have a worker take a stage; one that does not answer is told again next time."""
        address = self._addresses[name]
        request = stage_pb2.ChangeStageRequest(stage=stage_number(stage))
        try:
            async with open_channel(address, tls=self._tls) as channel:
                with translated(address):
                    await StageServiceStub(channel).ChangeStage(request, timeout=self._patience)
        except DisagfusionError as error:
            _log.warning("stage not changed yet", worker=name, problem=error.message)
        else:
            _log.info("stage changes", worker=name, stage=stage.value)

    async def _start_waiting(self) -> None:
        """Start what was asked for, as far as the budget and the pools have room."""
        if not self._waiting:
            return
        processes = await self._control.status()
        for place in list(self._waiting):
            free = self._free(place, processes)
            if free is not None:
                processes = await self._control.start(free, place.stage)
                self._waiting.remove(place)
                _log.info("worker starts", worker=free, stage=place.stage, pool=place.pool)

    def _free(self, place: Place, processes: Sequence[ProcessStatus]) -> str | None:
        """Return a process that may start at a place now."""
        held = instances(processes, self._pools, None)
        need = self._accelerators(place)
        used = sum(self._accelerators(one.place) for one in held)
        here = sum(self._accelerators(one.place) for one in held if one.place.pool == place.pool)
        if used + need > self._budget:
            return None
        if here + need > self._profile.pools[place.pool].accelerators:
            return None
        stopped = [
            one.name
            for one in processes
            if one.state is ProcessState.STOPPED and self._pools.get(one.name) == place.pool
        ]
        return next(iter(stopped), None)

    def _accelerators(self, place: Place) -> int:
        return self._profile.stages[place.stage].pools[place.pool].accelerators
