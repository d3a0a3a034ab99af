"""Carries out what is wanted of one pipeline, within the room that there is at every moment.

Replicas leave first, those that have least to do; others are started when they are gone. Nothing
is remembered but what was written and is not seen yet: whoever comes next goes on from what the
cluster shows and from the intent that stands on the pipeline.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from disagfusion.errors import DisagfusionError, NotFoundError
from disagfusion.scheduling.decision import Place
from disagfusion_operator.k8s.kinds import POD
from disagfusion_operator.k8s.port import Cluster, Object
from disagfusion_operator.scaling.fleet import DELETION_COST, Account, Phase, Pod, asked_of
from disagfusion_operator.scaling.flex import together

FIRST = "-1"
"""Deletion cost of a pod that is to go: those without any have 0."""


@dataclass(frozen=True, slots=True)
class Written:
    """Replicas that were written.

    Attributes:
        replicas: How many.
        generation: Of the Deployment before.
        uid: Of the Deployment.
    """

    replicas: int
    generation: int
    uid: str


@dataclass(slots=True)
class Actuator:
    """Of one pipeline.

    Attributes:
        cluster: Where it writes.
        namespace: Of the pipeline.
        written: By Deployment, the last that it wrote.
    """

    cluster: Cluster
    namespace: str
    written: dict[str, Written] = field(default_factory=dict)

    def asked(self, deployments: Mapping[Place, Object]) -> dict[Place, int]:
        """Return what Deployments ask for; caches may not have seen the last write yet.

        One whose pods change their stage asks for all of its places together.
        """
        return {
            place: one.replicas
            if (one := self._unseen(deployment)) is not None
            else asked_of(deployment)
            for place, deployment in deployments.items()
        }

    def foreign(self, deployments: Mapping[Place, Object]) -> dict[Place, int]:
        """Return the places that others have changed since, with the replicas they wrote.

        Of places that have one Deployment together it is the first. What was written into one that
        is taken away meanwhile is forgotten: whoever takes it away writes its replicas.
        """
        names = {_name(one) for one in deployments.values()}
        self.written = {name: one for name, one in self.written.items() if name in names}
        found = {}
        for places in together(deployments).values():
            deployment = deployments[places[0]]
            last = self._last(deployment)
            if last is None or self._unseen(deployment) is not None:
                continue
            if (replicas := asked_of(deployment)) != last.replicas:
                found[places[0]] = replicas
                # Told once; whether it is put right is another question.
                self.written[_name(deployment)] = _written(deployment, replicas)
        return found

    async def shrink(
        self,
        deployments: Mapping[Place, Object],
        accounts: Mapping[Place, Account],
        wanted: Mapping[Place, int],
        remaining: Callable[[], Awaitable[Mapping[str, float]]],
    ) -> list[Place]:
        """End replicas of places that have more than is wanted.

        Args:
            deployments: By place.
            accounts: By place.
            wanted: Replicas by place.
            remaining: Returns the seconds that pods will still compute; idle ones are left out.

        Returns:
            The places.

        Raises:
            DisagfusionError: The API server could not be asked to.
        """
        places = [
            place
            for place, count in wanted.items()
            if place in deployments and accounts[place].asked > count
        ]
        seconds: Mapping[str, float] = {}
        if any(self._has_choice(place, deployments, accounts, wanted) for place in places):
            seconds = await remaining()
        for mine in together({place: deployments[place] for place in places}).values():
            for place in mine:
                if self._has_choice(place, deployments, accounts, wanted):
                    account = accounts[place]
                    await self._choose(account, account.ready - wanted[place], seconds)
            fewer = {place: wanted[place] for place in mine}
            await self._scale(deployments[mine[0]], _total(mine[0], deployments, accounts, fewer))
        return places

    @staticmethod
    def _has_choice(
        place: Place,
        deployments: Mapping[Place, Object],
        accounts: Mapping[Place, Account],
        wanted: Mapping[Place, int],
    ) -> bool:
        """Tell whether some pods that work are to go and others of their Deployment are not."""
        together_with = together(deployments)[_name(deployments[place])]
        some_stay = any(wanted.get(one, accounts[one].asked) for one in together_with)
        return some_stay and wanted[place] < accounts[place].ready

    async def grow(
        self,
        deployments: Mapping[Place, Object],
        accounts: Mapping[Place, Account],
        counts: Mapping[Place, int],
    ) -> None:
        """Ask for more replicas.

        Args:
            deployments: By place.
            accounts: By place.
            counts: Replicas that are to be asked for.

        Raises:
            DisagfusionError: The API server could not be asked to.
        """
        for mine in together({place: deployments[place] for place in counts}).values():
            await self._scale(deployments[mine[0]], _total(mine[0], deployments, accounts, counts))

    async def _choose(self, account: Account, count: int, seconds: Mapping[str, float]) -> None:
        """Mark the pods that are to go: idle ones, then those that will have done soonest."""
        ready = [pod for pod in account.live if pod.phase is Phase.READY]
        # Of those that are alike the youngest goes.
        ready.sort(key=lambda pod: (seconds.get(pod.name, -1.0), -pod.created, pod.name))
        chosen = {pod.name for pod in ready[:count]}
        for pod in account.live:
            cost = FIRST if pod.name in chosen else None
            if pod.cost != cost:
                await self._mark(pod, cost)

    async def _mark(self, pod: Pod, cost: str | None) -> None:
        try:
            await self.cluster.annotate(POD, self.namespace, pod.name, {DELETION_COST: cost})
        except NotFoundError:
            return  # it went by itself

    async def _scale(self, deployment: Object, count: int) -> None:
        name = _name(deployment)
        try:
            await self.cluster.scale(self.namespace, name, count)
        except NotFoundError:
            self.written.pop(name, None)
            return  # it was deleted; whoever makes it again makes it with none
        except DisagfusionError:
            # It may have been done all the same.
            self.written.pop(name, None)
            raise
        self.written[name] = _written(deployment, count)

    def _last(self, deployment: Object) -> Written | None:
        """Return what was written last; into one that was made anew, nothing was."""
        last = self.written.get(_name(deployment))
        return last if last is not None and last.uid == _uid(deployment) else None

    def _unseen(self, deployment: Object) -> Written | None:
        last = self._last(deployment)
        if last is None or _generation(deployment) > last.generation:
            return None
        return last


def _written(deployment: Object, replicas: int) -> Written:
    return Written(replicas, _generation(deployment), _uid(deployment))


def _total(
    place: Place,
    deployments: Mapping[Place, Object],
    accounts: Mapping[Place, Account],
    counts: Mapping[Place, int],
) -> int:
    """Return the replicas of the Deployment of a place, where some of its places get others."""
    return sum(
        counts[one] if one in counts else accounts[one].asked
        for one in together(deployments)[_name(deployments[place])]
    )


def _name(deployment: Object) -> str:
    return str(deployment["metadata"]["name"])


def _uid(deployment: Object) -> str:
    return str(deployment["metadata"].get("uid", ""))


def _generation(deployment: Object) -> int:
    return int(deployment["metadata"].get("generation", 0))


def gradual(
    accounts: Mapping[Place, Account],
    wanted: Mapping[Place, int],
    least: Mapping[str, int],
    *,
    growing: bool,
) -> dict[Place, int]:
    """Return the replicas that are wanted, without the last of a stage leaving before others come.

    That is so as long as anything else is under way: two stages that wait for each other's room
    would wait for ever.

    Args:
        accounts: By place.
        wanted: Replicas by place.
        least: Stage → replicas that are to be ready in the meantime, if they are now.
        growing: Whether there is room for some of what is wanted.
    """
    counts = dict(wanted)
    kept = False
    for stage, count in least.items():
        mine = [place for place in wanted if place.stage == stage]
        ready = sum(min(accounts[place].ready, wanted[place]) for place in mine)
        lacking = min(count, sum(wanted[place] for place in mine)) - ready
        for place in mine:
            more = min(max(0, lacking), max(0, accounts[place].ready - wanted[place]))
            counts[place] += more
            lacking -= more
            kept = kept or more > 0
    moves = growing or any(
        one.leaving or len(one.live) > one.ready or one.asked > counts.get(place, one.asked)
        for place, one in accounts.items()
    )
    return counts if kept and moves else dict(wanted)


def affordable(
    accounts: Mapping[Place, Account],
    wanted: Mapping[Place, int],
    accelerators: Mapping[Place, int],
    pools: Mapping[Place, object],
    free: Mapping[object, int],
    budget: int,
) -> dict[Place, int]:
    """Return the replicas that Deployments may ask for now, of places where more are wanted.

    Args:
        accounts: By place.
        wanted: Replicas by place.
        accelerators: Of one replica, by place.
        pools: By place.
        free: Accelerators that may be taken, by pool.
        budget: Accelerators that may be taken in all.
    """
    asked = {
        place: one.asked for place, one in accounts.items() if wanted.get(place, 0) > one.asked
    }
    counts = dict(asked)
    left = dict(free)

    def fits(place: Place) -> bool:
        need = accelerators[place]
        return (
            need <= budget and need <= left.get(pools[place], 0) and counts[place] < wanted[place]
        )

    # A stage that has none holds up all others; then whoever is farthest from what is wanted.
    def order(place: Place) -> tuple[bool, float]:
        mine = sum(
            max(one.asked, counts.get(at, 0))
            for at, one in accounts.items()
            if at.stage == place.stage
        )
        return (mine > 0, counts[place] / wanted[place])

    while places := [place for place in counts if fits(place)]:
        place = min(places, key=order)
        counts[place] += 1
        left[pools[place]] = left[pools[place]] - accelerators[place]
        budget -= accelerators[place]
    return {place: count for place, count in counts.items() if count > asked[place]}
