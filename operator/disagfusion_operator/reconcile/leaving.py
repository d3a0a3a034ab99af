"""The end of a pipeline: no new jobs, those that there are finish, the rest are cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from disagfusion.errors import DisagfusionError, UnauthenticatedError
from disagfusion_operator.reconcile.gateways import Gateways, ask_all
from disagfusion_operator.reconcile.observe import Observed
from disagfusion_operator.scaling.gateways import Door

REFUSAL = "the pipeline is being deleted"
_CANCEL_SECONDS = 20.0
"""That gateways have to end what is cancelled, and to say so."""


@dataclass(frozen=True, slots=True)
class Leaving:
    """How far a pipeline is.

    Attributes:
        over: Whether everything may go.
        message: What it waits for.
    """

    over: bool
    message: str = ""


def may_go(observed: Observed, *, served: bool, left: float) -> bool:
    """Tell whether there is nothing to wait for, whatever gateways would say.

    A pipeline that is being deleted gets no new gateway: neither the operator makes one, nor could
    it in a namespace that is being deleted.

    Args:
        observed: What there is.
        served: Whether a gateway has ever been ready, so that there may be jobs.
        left: Seconds until jobs are cancelled; below zero, they should have been.
    """
    return not served or left < -_CANCEL_SECONDS or not observed.has_gateway()


async def leave(gateways: Gateways, doors: Sequence[Door], *, unheard: str, left: float) -> Leaving:
    """Go on with the end of a pipeline; can be called again and again.

    Args:
        gateways: How gateways are talked to.
        doors: Of those that answer.
        unheard: Why there may be jobs that they do not know; empty: they know all.
        left: Seconds until jobs are cancelled; below zero, they should have been.

    Raises:
        UnauthenticatedError: A gateway does not know the key.
    """
    if not doors:
        if left <= 0:
            return Leaving(True)
        return Leaving(False, f"no gateway answers; everything goes in {left:.0f} s")
    try:
        await asyncio.gather(*(gateways.admit(door, refuse=REFUSAL) for door in doors))
        unfinished = (await ask_all(gateways, doors)).unfinished
        if unfinished and left <= 0:
            await asyncio.gather(*(gateways.cancel(door, REFUSAL) for door in doors))
    except UnauthenticatedError:
        raise
    except DisagfusionError as error:
        return Leaving(False, f"a gateway does not answer: {error.message}")
    if not unfinished:
        return Leaving(not unheard, unheard)
    jobs = "1 job is" if unfinished == 1 else f"{unfinished} jobs are"
    if left > 0:
        return Leaving(False, f"{jobs} still under way; cancelled in {left:.0f} s")
    return Leaving(False, f"{jobs} being cancelled")
