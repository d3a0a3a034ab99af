"""How gateways share a front: who owns what, and who gets the grants. Pure.

Each assignment and each held output belongs to the gateway that gave the work, by name. A gateway
that others take for dead is replaced: what was its own is its successor's, and it is not heard
again. Grants go to gateways that have use for them, and first to whoever has the fewest slots; one
that has none gets what another has without using it, which that gives back first.
"""

from __future__ import annotations

from collections.abc import Collection

from disagfusion.stage.actions import Action, EndSession
from disagfusion.stage.core import MachineCore
from disagfusion.stage.held import HeldOutput
from disagfusion.stage.jobs import StageJob
from disagfusion.v1 import stage_pb2


class SharedMachine(MachineCore):
    """The part of `StageMachine` that knows more than one gateway."""

    def connected(
        self,
        session: str,
        name: str,
        now: float,
        *,
        shares: bool = False,
        takes_over: Collection[str] = (),
    ) -> list[Action]:
        """A gateway's stream begins: tell it all that may be its own.

        Args:
            session: New.
            name: The gateway; not one that was replaced.
            now: The time.
            shares: Whether there are others, to whom what is not its own may belong.
            takes_over: Gateways whose successor it is.
        """
        stale = self.gateways.session_of(name)
        if stale is not None:
            self._forget(stale, now)
            self._todo.append(EndSession(stale))
        former = self._replace(name, takes_over, now)
        if not shares:
            former |= {owner for owner in self._owners() if not self.gateways.connected(owner)}
        self.gateways.add(session, name, demand=not shares)
        jobs, held = self._inherit(name, former | {name})
        self._issue_grants(now, greeted=session)
        hello = stage_pb2.WorkerHello(
            worker=self.describe(),
            running=[job.running() for job in jobs],
            held=[output.done() for output in held],
            grant_ids=[slot.grant_id for slot in self.slots.offered(session)],
        )
        self._todo += self.gateways.tell(name, hello=hello)
        return self._advance(now)

    def disconnected(self, session: str, now: float) -> list[Action]:
        """A gateway's stream ended: offer its grants to others, go on with its work."""
        self._forget(session, now)
        return self._advance(now)

    def take_over(self, session: str, gateways: Collection[str], now: float) -> list[Action]:
        """The jobs of other gateways are this one's now."""
        name = self.gateways.name_of(session)
        if not name:
            return []
        jobs, held = self._inherit(name, self._replace(name, gateways, now))
        handed_over = stage_pb2.HandedOver(
            running=[job.running() for job in jobs], held=[output.done() for output in held]
        )
        self._todo += self.gateways.tell(name, handed_over=handed_over)
        return self._advance(now)

    def demand(self, session: str, waiting: bool, now: float) -> list[Action]:
        """A gateway has use for grants, or has none any more."""
        self.gateways.set_demand(session, waiting)
        return self._advance(now)

    def return_grants(self, session: str, grant_ids: Collection[str], now: float) -> list[Action]:
        """A gateway does not use these grants."""
        for slot in self.slots.offered(session):
            if slot.grant_id in grant_ids:
                self.slots.release(slot)
        return self._advance(now)

    def _forget(self, session: str, now: float) -> None:
        for slot in self.slots.offered(session):
            self.slots.release(slot)
        name = self.gateways.name_of(session)
        self.gateways.remove(session)
        if not self.gateways.connected(name):
            for output in self.held:
                if output.owner == name:
                    output.touched = now

    def _owners(self) -> set[str]:
        jobs = {job.owner for job in self._jobs.values()}
        return jobs | {output.owner for output in self.held}

    def _replace(self, name: str, gateways: Collection[str], now: float) -> set[str]:
        """Hear these gateways no more."""
        former = set(gateways) - {name}
        for other in sorted(former):
            self.gateways.replaced[other] = None
            session = self.gateways.session_of(other)
            if session is not None:
                self._forget(session, now)
                self._todo.append(EndSession(session))
        return former

    def _inherit(self, name: str, owners: set[str]) -> tuple[list[StageJob], list[HeldOutput]]:
        """Make a gateway's own what belongs to these; return it."""
        jobs = [job for job in self._jobs.values() if job.owner in owners]
        held = [output for output in self.held if output.owner in owners]
        for job in jobs:
            job.owner = name
        for output in held:
            output.owner = name
        for number, (output, request, owner) in self._sends.items():
            if owner in owners:
                self._sends[number] = (output, request, name)
        return jobs, held
