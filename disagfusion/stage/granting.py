"""Which gateway gets a slot, and which gives one up. Pure."""

from __future__ import annotations

from disagfusion.stage.gateways import Gateways
from disagfusion.stage.inputs import InputSlots, Slot


def neediest(gateways: Gateways, slots: InputSlots) -> str:
    """Return the session to be granted a slot: one with use for it, and with the fewest."""

    def claim(session: str) -> tuple[bool, int, int]:
        count = sum(slot.gateway == session for slot in slots)
        return not gateways.demands(session), count, gateways.served(session)

    return min(gateways.sessions, key=claim)


def recalls(gateways: Gateways, slots: InputSlots) -> list[Slot]:
    """Return the grants to be asked back, for those who have use for one and have none to use.

    There are none left to give, or there would be no such gateway. One that does not use its grants
    has no need of any; one that does keeps its last.
    """
    if len(gateways) < 2:
        return []
    poor, idle = 0, []
    for session in gateways.sessions:
        offered = slots.offered(session)
        if not gateways.demands(session):
            idle += offered
        elif offered:
            idle += offered[1:]
        else:
            poor += 1
    missing = poor - sum(slot.recalled for slot in idle)
    found = [slot for slot in idle if not slot.recalled][: max(0, missing)]
    for slot in found:
        slot.recalled = True
    return found
