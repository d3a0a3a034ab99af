"""What changes the simulated fleet: moves, starts within the budget, failures and repairs."""

from __future__ import annotations

from collections import deque
from functools import partial

from disagfusion.scheduling.decision import Move, Place
from disagfusion.scheduling.profile import Profile
from disagfusion.simulation.fleet import Phase, Replica
from disagfusion.simulation.workload import Failure, Workload
from disagfusion.simulation.world import World

_DRAIN_SECONDS = 25.0
"""For which a drained worker waits until the next stage has fetched what it holds, by default."""


class Operations:
    """Carries out decisions, and lets accelerators fail.

    Args:
        world: Whose fleet it is.
        profile: How many accelerators there are.
        workload: The budget and the failures.
    """

    def __init__(self, world: World, profile: Profile, workload: Workload) -> None:
        self._world = world
        self._profile = profile
        total = sum(pool.accelerators for pool in profile.pools.values())
        self.budget = total if workload.budget is None else workload.budget
        self.broken = dict.fromkeys(profile.pools, 0)
        self.waiting_starts: deque[Place] = deque()
        self.moves = 0
        self.repairs = 0
        world.on_idle = self._drained
        together: dict[float, list[Failure]] = {}
        for failure in workload.failures:
            together.setdefault(failure.at, []).append(failure)
        for at, failures in together.items():
            world.clock.at(at, partial(self._fail, failures))

    def place(self, initial: dict[str, dict[str, int]]) -> None:
        """Put replicas where they take work at once."""
        for stage, pools in initial.items():
            for pool, count in pools.items():
                for _ in range(count):
                    self._world.connect(self._world.fleet.add(Place(stage, pool)))

    def usable(self, pool: str) -> int:
        """Return the accelerators of a pool that work."""
        return self._profile.pools[pool].accelerators - self.broken[pool]

    def begin(self, move: Move) -> None:
        """Begin a move of as many replicas as there are."""
        for _ in range(move.count):
            if move.cancel:
                assert move.source is not None, "what starts, starts somewhere"
                self._cancel(move.source)
                continue
            if move.source is None:
                assert move.target is not None, "a move has an end at least"
                self.waiting_starts.append(move.target)
            elif not self._send_away(move.source, move.target):
                break
            self.moves += 1
        self._start_waiting()

    def _cancel(self, place: Place) -> None:
        """Take back a start: one that waits for room, or the youngest that loads."""
        if place in self.waiting_starts:
            self.waiting_starts.remove(place)
            return
        fleet = self._world.fleet
        starting = [r for r in fleet.at(place) if r.phase is Phase.STARTING]
        if starting:
            starting[-1].epoch += 1
            fleet.remove(starting[-1])

    def _send_away(self, source: Place, target: Place | None) -> bool:
        """Drain the replica that is free first, the youngest where several are."""
        ready = [r for r in self._world.fleet.at(source) if r.phase is Phase.READY]
        victim = min(reversed(ready), key=self._world.free_at, default=None)
        if victim is None:
            return False
        fleet = self._world.fleet
        if target is not None and (
            target.pool == source.pool and fleet.accelerators(target) == fleet.accelerators(source)
        ):
            victim.target = target
        elif target is not None:
            self.waiting_starts.append(target)
        self._world.drain(victim)
        self._drained(victim)
        return True

    def _drained(self, replica: Replica) -> None:
        """Let a draining replica go on, if it has done what it had."""
        if replica.phase is not Phase.DRAINING or replica.tasks:
            return
        if self._world.fleet.get(replica.name) is None:
            # What it held was released, and it left, while the end of its job was told.
            return
        if replica.target is not None:
            # The process stays, and what it holds; only its stage is another.
            now, decided = self._world.clock.now, replica.since
            services = self._world.services
            self._world.leave(replica)
            self._world.fleet.relocate(replica, replica.target)
            replica.target = None
            begun = decided if services.loads_ahead(replica.place) else now
            self._start(replica, max(now, begun + services.rebind_seconds(replica.place)))
        elif not replica.held:
            self._stop(replica)
        elif replica.leaves_at is None:
            # The next stage may wait for the very accelerators that this one keeps.
            replica.leaves_at = self._world.clock.now + _DRAIN_SECONDS
            self._world.clock.at(replica.leaves_at, partial(self._give_up, replica, replica.epoch))

    def _give_up(self, replica: Replica, epoch: int) -> None:
        if replica.epoch == epoch:
            self._stop(replica)

    def _stop(self, replica: Replica) -> None:
        self._world.leave(replica)
        self._world.fleet.remove(replica)
        self._world.lose([replica], "stopped")
        self._start_waiting()

    def _start(self, replica: Replica, available_at: float) -> None:
        replica.phase, replica.since = Phase.STARTING, self._world.clock.now
        replica.epoch += 1
        replica.available_at = available_at
        self._world.clock.at(replica.available_at, partial(self._started, replica, replica.epoch))

    def _started(self, replica: Replica, epoch: int) -> None:
        if replica.epoch == epoch:
            self._world.connect(replica)

    def _start_waiting(self) -> None:
        """Start what was asked for, as far as the budget and the pools have room."""
        fleet = self._world.fleet
        for _ in range(len(self.waiting_starts)):
            place = self.waiting_starts.popleft()
            need = fleet.accelerators(place)
            room = self.usable(place.pool) - fleet.used_of(place.pool)
            if need <= room and fleet.used + need <= self.budget:
                replica = fleet.add(place)
                seconds = self._world.services.rebind_seconds(place)
                self._start(replica, self._world.clock.now + seconds)
            else:
                self.waiting_starts.append(place)

    def _fail(self, failures: list[Failure]) -> None:
        """Lose what fails at one instant, before any of its jobs goes to another replica."""
        lost = [replica for failure in failures for replica in self._hit(failure)]
        self._world.lose(lost, "failed")
        self._start_waiting()

    def _hit(self, failure: Failure) -> list[Replica]:
        fleet, clock = self._world.fleet, self._world.clock
        hit = [
            replica
            for replica in fleet
            if replica.place.pool == failure.pool
            and failure.stage in (None, replica.place.stage)
            and replica.phase is not Phase.STARTING
        ][: failure.replicas]
        for replica in hit:
            self._world.leave(replica)
            replica.target = None
            need = fleet.accelerators(replica.place)
            self.broken[failure.pool] += need
            fleet.remove(replica)
            if failure.repair_seconds is not None:
                # As a Deployment does: asked for again at once, started when there is room.
                self.waiting_starts.append(replica.place)
                self.repairs += 1
                at = clock.now + failure.repair_seconds
                clock.at(at, partial(self._repair, failure.pool, need))
        return hit

    def _repair(self, pool: str, accelerators: int) -> None:
        self.repairs -= 1
        self.broken[pool] -= accelerators
        self._start_waiting()
