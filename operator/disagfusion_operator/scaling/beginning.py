"""What a pipeline wants before anybody has told of its load."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from disagfusion.scheduling.decision import Place
from disagfusion_operator.scaling.intent import Intent, common_version
from disagfusion_operator.scaling.moment import Moment
from disagfusion_operator.scaling.view import Key

_STEADY_SECONDS = 10.0
"""For so long what may be used stays the same before more is begun: pools are divided anew with
every pipeline that comes."""


class Beginning:
    """Plans what one pipeline begins with, and more where others leave it more later.

    Args:
        plan: Returns the exact plan for what may be used; None where it is not known or not wanted.
        targets: Returns the replicas that a pipeline's shares are meant for.
        current: Tells whether these are of the pipeline as it is.
    """

    def __init__(
        self,
        plan: Callable[[Moment], Awaitable[Mapping[Place, int] | None]],
        targets: Callable[[Key], Mapping[Place, int]],
        current: Callable[[Key], bool],
    ) -> None:
        self._plan = plan
        self._targets = targets
        self._current = current
        self._usable: Mapping[str, int] = {}
        self._since = 0.0

    async def aim(self, moment: Moment, intent: Intent | None, *, begun: bool) -> Intent:
        """Return what is wanted: as before, as it is, or what a pipeline begins with.

        Args:
            moment: Now.
            intent: What was wanted; None: nobody has said.
            begun: Whether every stage has been there once.
        """
        asked = {place: moment.account(place).asked for place in moment.places}
        if intent is not None and (
            begun
            or any(intent.desired.values())
            or any(asked.values())
            or moment.spec.scaling.paused
        ):
            desired = {place: intent.desired.get(place, 0) for place in moment.places}
            ready = {place.stage for place in moment.places if moment.account(place).ready}
            if ready >= set(moment.claim.stages):
                version = common_version(moment.view.deployments.values())
                intent = replace(intent, begun=intent.begun if version is None else version)
            return await self._grown(moment, replace(intent, desired=desired))
        if any(asked.values()):
            return Intent(asked)
        # There has been no room for any.
        wanted = await self._plan(moment)
        planned = wanted is not None
        if wanted is None:
            wanted = self._targets(moment.view.key)
        return Intent({place: wanted.get(place, 0) for place in moment.places}, planned=planned)

    async def _grown(self, moment: Moment, intent: Intent) -> Intent:
        """Return an intent with more, where there was not the room for the whole budget before."""
        budget, usable = moment.claim.budget, moment.usable()
        if usable != self._usable:
            self._usable, self._since = usable, moment.now
        if (
            not intent.planned
            or budget is None
            or moment.spec.scaling.paused
            or not self._current(moment.view.key)
            or moment.now - self._since < _STEADY_SECONDS
        ):
            return intent
        taken = _taken(moment, intent.desired)
        if sum(taken.values()) >= budget or all(
            usable[pool] <= count for pool, count in taken.items()
        ):
            return intent
        self._since = moment.now
        wanted = await self._plan(moment)
        if wanted is None or sum(_taken(moment, wanted).values()) <= sum(taken.values()):
            return intent
        return replace(intent, desired={place: wanted.get(place, 0) for place in moment.places})


def _taken(moment: Moment, counts: Mapping[Place, int]) -> dict[str, int]:
    """Return the accelerators that replicas take, by the pools' names in the specification."""
    found = {place.pool: 0 for place in moment.places}
    for place, seat in moment.claim.seats.items():
        found[place.pool] += counts.get(place, 0) * seat.accelerators
    return found
