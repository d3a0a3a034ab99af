"""Input slots: fixed places in memory, each filled by right of a grant. Pure bookkeeping.

A slot's life is that of its grant in `GrantPool`; what is added here is the place, what lies there,
which gateway the grant was offered to, and that a slot which is no longer wanted while a message
still writes to it is only given again when that has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from disagfusion.transport.api import MessageHeader, RefusalReason, RefusedError
from disagfusion.transport.slots import GrantPool, SlotState


@dataclass(slots=True, eq=False)
class Slot:
    """A slot that is granted.

    Attributes:
        grant_id: The grant.
        index: Which slot.
        gateway: The connected gateway that may use the grant.
        since: When the grant was issued, or last put to use.
        header: What is being received or lies there.
        received_at: When it was there, verified.
        receive_seconds: How long receiving took.
        assigned: An assignment uses it.
        doomed: Nobody wants what is still being received.
        recalled: The gateway was asked to give it back.
    """

    grant_id: str
    index: int
    gateway: str
    since: float
    header: MessageHeader | None = None
    received_at: float | None = None
    receive_seconds: float = 0.0
    assigned: bool = False
    doomed: bool = False
    recalled: bool = False


class InputSlots:
    """All slots of a front.

    Args:
        slots: How many.
        slot_bytes: Size of each.
        new_id: Makes unguessable identifiers of grants.
    """

    def __init__(self, slots: int, slot_bytes: int, new_id: Callable[[], str]) -> None:
        self.slot_bytes = slot_bytes
        self.slots = slots
        self._pool = GrantPool(slots)
        self._new_id = new_id
        self._free = list(range(slots))
        self._granted: dict[str, Slot] = {}

    def __iter__(self) -> Iterator[Slot]:
        return iter(list(self._granted.values()))

    def __len__(self) -> int:
        return len(self._granted)

    @property
    def free(self) -> int:
        """Slots that may be granted."""
        return len(self._free)

    def get(self, grant_id: str) -> Slot | None:
        """Return the slot of a grant that is neither spent nor doomed."""
        slot = self._granted.get(grant_id)
        return None if slot is None or slot.doomed else slot

    def offered(self, gateway: str) -> list[Slot]:
        """Return the slots whose grants a gateway may still use."""
        granted = self._granted.values()
        return [s for s in granted if s.gateway == gateway and not s.assigned and not s.header]

    def state(self, slot: Slot) -> SlotState:
        """Return what a slot is doing."""
        return self._pool.state(slot.grant_id)

    def offset(self, slot: Slot) -> int:
        """Return where a slot begins."""
        return slot.index * self.slot_bytes

    def issue(self, gateway: str, now: float) -> Slot:
        """Grant a free slot to a gateway."""
        grant_id = self._new_id()
        self._pool.issue(grant_id)
        slot = Slot(grant_id, self._free.pop(), gateway, now)
        self._granted[grant_id] = slot
        return slot

    def assign(self, grant_id: str, job_id: str, attempt: int) -> Slot:
        """Use a grant for an assignment.

        Raises:
            RefusedError: The grant is unknown, used, or bound to something else.
        """
        slot = self.get(grant_id)
        if slot is None or slot.assigned:
            raise RefusedError(RefusalReason.UNKNOWN_GRANT, "the grant is unknown or used")
        self._pool.assign(grant_id, job_id, attempt)
        slot.assigned = True
        return slot

    def admit(self, header: MessageHeader, now: float) -> int:
        """Begin to fill a slot; return where it begins.

        Raises:
            RefusedError: The grant is unknown, used or bound to something else, or the message
                is too large.
        """
        slot = self.get(header.grant_id)
        if slot is None:
            raise RefusedError(RefusalReason.UNKNOWN_GRANT, "the grant is unknown or spent")
        if header.nbytes > self.slot_bytes:
            detail = f"{header.nbytes} bytes, a slot has {self.slot_bytes}"
            raise RefusedError(RefusalReason.TOO_LARGE, detail)
        self._pool.admit(header.grant_id, header.job_id, header.attempt)
        slot.header = header
        slot.since = now
        return self.offset(slot)

    def filled(self, grant_id: str, seconds: float, now: float) -> Slot | None:
        """Note that a message is there; return its slot unless nobody wants it."""
        slot = self._granted[grant_id]
        self._pool.filled(grant_id)
        if slot.doomed:
            self._release(slot)
            return None
        slot.received_at, slot.receive_seconds, slot.since = now, seconds, now
        return slot

    def dropped(self, grant_id: str, now: float) -> Slot | None:
        """Note that a message will not come; return its slot unless nobody wants it."""
        slot = self._granted[grant_id]
        self._pool.dropped(grant_id)
        if slot.doomed:
            self._release(slot)
            return None
        slot.header, slot.since = None, now
        return slot

    def release(self, slot: Slot) -> None:
        """Free a slot, at the end of what still writes to it."""
        if self._pool.state(slot.grant_id) is SlotState.FILLING:
            slot.doomed = True
        else:
            self._release(slot)

    def counts(self) -> dict[SlotState, int]:
        """Number of slots by state."""
        return dict(self._pool.counts)

    def _release(self, slot: Slot) -> None:
        self._pool.release(slot.grant_id)
        del self._granted[slot.grant_id]
        self._free.append(slot.index)
