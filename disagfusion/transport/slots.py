"""Grants: the right to fill one slot of an input port once.

A receiver issues a grant for each slot that it is willing to have filled. The grant's identifier
travels through the gateway to a sender, whose message must carry it. So any number of senders
share a port and none can overcommit it. Identifiers are passed in: they must be unguessable
(`secrets.token_hex`), for whoever knows one may fill the slot.

    free ──issue──► ISSUED ──admit──► FILLING ──filled──► FILLED ──release──► free
                      ▲ └─revoke──► free  │
                      └─────dropped───────┘
"""

from __future__ import annotations

import enum
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from disagfusion.transport.api import RefusalReason, RefusedError

_REMEMBERED = 4096


class SlotState(enum.StrEnum):
    """What a slot is doing."""

    FREE = "free"
    ISSUED = "issued"
    FILLING = "filling"
    FILLED = "filled"


class NoFreeSlotError(Exception):
    """All slots of the port are granted or in use."""


@dataclass(slots=True)
class _Grant:
    state: SlotState = SlotState.ISSUED
    # The job and attempt it is bound to, by an assignment or by the first message.
    job: tuple[str, int] | None = None
    assigned: bool = False


class GrantPool:
    """The slots of one input port and the grants for them.

    Args:
        slots: Number of slots; two for a double buffer.
    """

    def __init__(self, slots: int) -> None:
        if slots < 1:
            raise ValueError(f"a port with {slots} slots can receive nothing")
        self._slots = slots
        self._grants: dict[str, _Grant] = {}
        self._spent: OrderedDict[str, None] = OrderedDict()

    @property
    def free(self) -> int:
        """Number of slots for which a grant may be issued."""
        return self._slots - len(self._grants)

    @property
    def offered(self) -> tuple[str, ...]:
        """Grants that no assignment and no message has taken, oldest first."""
        return tuple(
            name
            for name, grant in self._grants.items()
            if grant.state is SlotState.ISSUED and grant.job is None
        )

    @property
    def counts(self) -> Mapping[SlotState, int]:
        """Number of slots by state; every state is present."""
        counted = Counter(grant.state for grant in self._grants.values())
        return {state: counted[state] for state in SlotState} | {SlotState.FREE: self.free}

    def issue(self, grant_id: str) -> None:
        """Grant a free slot.

        Raises:
            NoFreeSlotError: There is none.
            ValueError: The identifier was used before.
        """
        if not grant_id or grant_id in self._grants or grant_id in self._spent:
            raise ValueError("a grant's identifier is used once")
        if not self.free:
            raise NoFreeSlotError(f"all {self._slots} slots are taken")
        self._grants[grant_id] = _Grant()

    def assign(self, grant_id: str, job_id: str, attempt: int) -> None:
        """Bind a grant to the assignment that uses it up.

        The message may have come before the assignment. Saying the same again changes nothing.

        Raises:
            RefusedError: The grant is unknown or spent (`UNKNOWN_GRANT`), or it is bound to
                another job or attempt (`STALE`).
        """
        grant = self._known(grant_id)
        self._bind(grant, job_id, attempt)
        grant.assigned = True

    def admit(self, grant_id: str, job_id: str, attempt: int) -> None:
        """Begin to fill the slot.

        Raises:
            RefusedError: The grant is unknown or spent, or its slot was filled or is being
                filled (`UNKNOWN_GRANT`); or it is bound to another job or attempt (`STALE`).
        """
        grant = self._known(grant_id)
        if grant.state is not SlotState.ISSUED:
            raise RefusedError(RefusalReason.UNKNOWN_GRANT, f"the slot is {grant.state.value}")
        self._bind(grant, job_id, attempt)
        grant.state = SlotState.FILLING

    def filled(self, grant_id: str) -> None:
        """Note that the admitted message is there."""
        self._expect(grant_id, SlotState.FILLING).state = SlotState.FILLED

    def dropped(self, grant_id: str) -> None:
        """Note that the admitted message will not arrive: the grant may be used again."""
        grant = self._expect(grant_id, SlotState.FILLING)
        grant.state = SlotState.ISSUED
        if not grant.assigned:
            grant.job = None

    def revoke(self, grant_id: str) -> bool:
        """Take back a grant that neither an assignment nor a message has taken.

        Returns:
            Whether it was taken back; its slot is free then.
        """
        grant = self._grants.get(grant_id)
        if grant is None or grant.state is not SlotState.ISSUED or grant.assigned:
            return False
        self.release(grant_id)
        return True

    def release(self, grant_id: str) -> None:
        """Free the slot: its content is used up or no longer wanted.

        A slot that is being filled cannot be freed, since a message still writes to its memory.

        Raises:
            ValueError: The grant is unknown or its slot is being filled.
        """
        grant = self._grants.get(grant_id)
        if grant is None:
            raise ValueError("unknown grant")
        if grant.state is SlotState.FILLING:
            raise ValueError("the slot is being filled")
        del self._grants[grant_id]
        self._spent[grant_id] = None
        while len(self._spent) > _REMEMBERED:
            self._spent.popitem(last=False)

    def state(self, grant_id: str) -> SlotState:
        """Return the state of the grant's slot; `FREE` where the grant is unknown or spent."""
        grant = self._grants.get(grant_id)
        return SlotState.FREE if grant is None else grant.state

    def _known(self, grant_id: str) -> _Grant:
        grant = self._grants.get(grant_id)
        if grant is None:
            spent = grant_id in self._spent
            raise RefusedError(
                RefusalReason.UNKNOWN_GRANT, "the grant is spent" if spent else "no such grant"
            )
        return grant

    def _bind(self, grant: _Grant, job_id: str, attempt: int) -> None:
        if grant.job is None:
            grant.job = (job_id, attempt)
        elif grant.job != (job_id, attempt):
            raise RefusedError(RefusalReason.STALE, "the grant is bound to another assignment")

    def _expect(self, grant_id: str, state: SlotState) -> _Grant:
        grant = self._grants.get(grant_id)
        if grant is None or grant.state is not state:
            raise ValueError(f"the slot is {self.state(grant_id).value}, not {state.value}")
        return grant
