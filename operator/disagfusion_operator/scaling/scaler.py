"""Balancing of one pipeline: what a step of it does, in which order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import partial

from disagfusion.errors import DisagfusionError, NotFoundError
from disagfusion.scheduling.decision import Place
from disagfusion.telemetry.logging import get_logger
from disagfusion_operator.k8s.kinds import PIPELINE
from disagfusion_operator.k8s.port import Cluster
from disagfusion_operator.scaling import reporting
from disagfusion_operator.scaling.actuator import Actuator, affordable, gradual
from disagfusion_operator.scaling.beginning import Beginning
from disagfusion_operator.scaling.behavior import time_scale
from disagfusion_operator.scaling.capacity import overdue, patience
from disagfusion_operator.scaling.changes import Changes
from disagfusion_operator.scaling.claims import (
    claim_of,
    entry_of,
    lacking,
    opposed,
    undecided,
)
from disagfusion_operator.scaling.conflict import Watch
from disagfusion_operator.scaling.deciding import applied
from disagfusion_operator.scaling.fleet import Account, Pod, read_accounts
from disagfusion_operator.scaling.flex import changing, unchanged
from disagfusion_operator.scaling.intent import ANNOTATION, Intent, common_version, read_intent
from disagfusion_operator.scaling.ledger import Ledger
from disagfusion_operator.scaling.mind import Mind, Senses
from disagfusion_operator.scaling.moment import Moment
from disagfusion_operator.scaling.profiles import UNBOUNDED
from disagfusion_operator.scaling.report import Choice, Happening, Report
from disagfusion_operator.scaling.table import Claim
from disagfusion_operator.scaling.trim import trimmed, with_minima
from disagfusion_operator.scaling.view import ClusterView, PipelineView
from disagfusion_operator.scaling.workers import Workers

_SOON = 1.0
"""Seconds until the next step where something is under way that no watched object tells of."""

_log = get_logger(__name__)


class Scaler:
    """Of one pipeline.

    Args:
        view: As it is now.
        cluster: Where replicas are written.
        ledger: Of all pools.
        senses: Of all pipelines.
        workers: Are told to change their stage.
        now: Unix seconds.

    Attributes:
        uid: Of the resource.
        mind: Decides.
    """

    def __init__(
        self,
        view: PipelineView,
        cluster: Cluster,
        ledger: Ledger,
        senses: Senses,
        workers: Workers,
        now: float,
    ) -> None:
        self.uid = view.uid
        self.mind = Mind(view, senses, now)
        self._senses = senses
        self._cluster = cluster
        self._ledger = ledger
        self._actuator = Actuator(cluster, view.key.namespace)
        self._changes = Changes(
            *(cluster, workers, view.key.namespace),
            lambda place, seconds: self.mind.knowledge.changed(place, seconds),
        )
        self._beginning = Beginning(
            lambda moment: self.mind.first(moment), ledger.targets, ledger.current
        )
        self._watch = Watch()
        self._kept = view.annotations.get(ANNOTATION)
        self._intent = read_intent(self._kept)
        if self._intent is not None:
            self.mind.fall_asleep(self._intent.asleep)
        self._now = now
        self._choice: Choice | None = None
        self._happened: list[Happening] = []

    async def step(self, view: PipelineView, cluster: ClusterView, now: float) -> Report:
        """Go on; see `Scaling.step`."""
        self._now = max(now, self._now)
        if time_scale(view.spec) != self.mind.scale:
            await self._think_anew(view)
        self._wake(view)
        moment = self._look(view, cluster)
        if moment is None:
            # Nobody knows yet what this pipeline may have.
            return Report({}, again_after=_SOON)
        desired: Mapping[Place, int]
        if not moment.auto:
            self._intent = None
            desired = self._as_asked(moment)
        else:
            self._intent = await self._beginning.aim(moment, self._intent, begun=self._begun())
            self._give_up(moment)
            self._trim(moment)
            desired = self._intent.desired
        last = None if moment.auto else self.mind.decision
        decision = None
        if self._ledger.current(view.key):
            decision = await self.mind.decide(moment, desired)
        if decision is not None:
            self._choice = reporting.choice_of(decision, last, self._choice, moment.now)
            news = reporting.happening_of(decision, last, view.spec.scaling.mode)
            self._happened += [] if news is None else [news]
            if self._intent is not None:
                self._intent = replace(
                    self._intent,
                    desired=applied(desired, decision),
                    asleep=self.mind.asleep,
                    planned=self._intent.planned and not decision.moves,
                )
                desired = self._intent.desired
        failure = ""
        try:
            await self._carry_out(moment, desired)
        except DisagfusionError as error:
            failure = error.message
            _log.warning("not carried out", pipeline=str(view.key), problem=failure)
        return self._report(moment, desired, failure)

    async def _think_anew(self, view: PipelineView) -> None:
        """Decide by another clock: what was learned by the old one is of no use."""
        before, self.mind = self.mind, Mind(view, self._senses, self._now)
        self.mind.fall_asleep(before.asleep)
        await before.aclose()

    def _wake(self, view: PipelineView) -> None:
        """Have a version that is new to the gateways show itself although there is no work."""
        intent, version = self._intent, common_version(view.deployments.values())
        if intent is None or not intent.asleep or version in (None, intent.begun):
            return
        self.mind.wake()
        self._intent = Intent(intent.asleep)

    def _look(self, view: PipelineView, cluster: ClusterView) -> Moment | None:
        now = self._now
        bounds = self.mind.read(view, now)
        if view.spec.scaling.mode == "Auto" and not self._begun():
            # What a pipeline accepts, gateways know from its workers.
            bounds = replace(
                bounds, least={stage: max(1, count) for stage, count in bounds.least.items()}
            )
        accounts = self._accounts(view)
        pods = [pod for one in accounts.values() for pod in (*one.live, *one.leaving)]
        for pod in pods:
            self.mind.knowledge.watch(pod)
        uids = {pod.uid for pod in pods}
        self.mind.knowledge.keep(uids)
        self._changes.keep(uids)
        claim = claim_of(
            *(view.key, view.spec, bounds, self.mind.places(view)),
            lambda place: self.mind.speed(place, now),
            self.mind.need,
            {} if self._intent is None else self._intent.desired,
            asleep=self.mind.resting,
        )
        self._ledger.enter(entry_of(claim, view.spec, accounts, view.pods), now)
        shares = self._ledger.shares(view.key, cluster, now)
        if shares is None:
            return None
        fixed = self._conflicts(view, accounts, claim)
        fixed = {place: who for place, who in fixed.items() if place in claim.seats}
        return Moment(view, bounds, claim, accounts, fixed, shares, now)

    def _begun(self) -> bool:
        """Tell whether every stage has been there once."""
        intent = self._intent
        return intent is not None and (intent.begun is not None or bool(intent.asleep))

    def _accounts(self, view: PipelineView) -> dict[Place, Account]:
        asked = self._actuator.asked(view.deployments)
        wanted = None if self._intent is None else self._intent.desired
        return read_accounts(view.pods, view.deployments, asked, wanted, self._changes.current)

    def _conflicts(
        self, view: PipelineView, accounts: Mapping[Place, Account], claim: Claim
    ) -> dict[Place, str]:
        """Return the places that somebody else scales; what they say is what there should be."""
        foreign = self._actuator.foreign(view.deployments)
        if view.spec.scaling.mode != "Auto":
            foreign = opposed(claim, accounts, view.deployments, foreign)
        found, news = self._watch.look(view.deployments, view.autoscalers, foreign, self._now)
        self._happened += news
        if self._intent is not None and found:
            followed = {place: accounts[place].asked for place in found}
            followed |= undecided(view, accounts, lacking(claim, accounts, found))
            self._intent = replace(self._intent, desired={**self._intent.desired, **followed})
        return found

    def _as_asked(self, moment: Moment) -> dict[Place, int]:
        """Return what Deployments ask for, and what stages lack of their minima."""
        asked = {place: moment.account(place).asked for place in moment.places}
        least = self._ledger.targets(moment.view.key)
        mine = {place: least.get(place, 0) for place in moment.places}
        asked |= undecided(moment.view, moment.accounts, mine)
        return reporting.at_least(moment.claim, asked, least, moment.fixed)

    def _give_up(self, moment: Moment) -> None:
        """Take back what has waited for too long, and take its pool for full."""
        assert self._intent is not None, "there is an aim"
        desired = dict(self._intent.desired)
        for place, seat in moment.claim.seats.items():
            if place in moment.fixed:
                continue
            found = overdue(
                moment.account(place),
                patience(moment.spec.pools[place.pool]),
                moment.now,
                freed_at=self._ledger.freed_at(seat.pool),
            )
            if found is None or desired[place] <= found.keep:
                continue
            desired[place] = found.keep
            self._ledger.fill(moment.view.key, seat.pool, found, moment.now)
            message = f"{place.stage} on {place.pool}: {found.message}; {found.keep} stay"
            reason = "QuotaRefused" if found.quota else "PoolFull"
            self._happened.append(Happening(reason, message, "TakeBack", warning=True))
        self._intent = replace(self._intent, desired=desired)

    def _trim(self, moment: Moment) -> None:
        """Keep what is wanted within bounds, and within the shares of pools that others use.

        Shares of before other bounds, or of before a pool was full, say nothing: they are waited
        for. What one stage has too many of, another may need, and a pod that changes stays.
        """
        assert self._intent is not None, "there is an aim"
        if moment.spec.scaling.paused or not self._ledger.current(moment.view.key):
            return
        claim, before = moment.claim, self._intent.desired
        shared = {
            pool: moment.shares[pool] for pool in sorted(claim.pools) if self._ledger.shared(pool)
        }
        targets = self._ledger.targets(moment.view.key)
        after = trimmed(claim, before, shared, targets, tuple(moment.fixed))
        if not self.mind.asleep:
            after = with_minima(claim, after, moment.shares, targets, tuple(moment.fixed))
        if after != before:
            self._happened.append(Happening("Bounded", reporting.changes(before, after)))
        self._intent = replace(self._intent, desired=after)

    async def _carry_out(self, moment: Moment, desired: Mapping[Place, int]) -> None:
        """Go on towards what is wanted; where a pod may not be written, with all the rest."""
        failures = self._changes.failures
        failures.clear()
        try:
            moment = await self._changed(moment, desired)
            if not moment.spec.scaling.paused:
                await self._keep(moment)
                await self._scaled(moment, desired)
        finally:
            self._again(moment)
        if failures:
            raise failures[0]

    async def _changed(self, moment: Moment, desired: Mapping[Place, int]) -> Moment:
        """Have pods change their stage in place, where that gets nearer to what is wanted.

        It is written down before that what is wanted. In a pipeline that is to stay as it is, only
        pods that have just been made change: those that take the place of others.
        """
        view, groups = moment.view, changing(moment.view.deployments)
        if not groups:
            return moment
        paused = moment.spec.scaling.paused
        if not paused:
            await self._keep(moment)
        pods = self._pods(moment, groups)
        if await self._changes.doubt(pods, self.mind.served, self.mind.served_at):
            moment = self._again(moment)
        wanted = {place: desired.get(place, 0) for place in view.deployments}
        accounts = self._moving(moment, wanted)
        growing = not paused and bool(self._growth(moment, wanted))
        keep = gradual(accounts, wanted, moment.claim.least, growing=growing)
        remaining = partial(self.mind.remaining, moment)
        for group in groups:
            changed = await self._changes.exchange(
                *(group, moment.accounts, keep, wanted, remaining, moment.now),
                starting=paused,
            )
            if changed:
                moment = self._again(moment)
        pods = self._pods(moment, groups)
        self._happened += await self._changes.tell(pods, view.worker_tls, moment.now)
        return self._again(moment)

    @staticmethod
    def _pods(moment: Moment, groups: Iterable[Iterable[Place]]) -> list[Pod]:
        return [pod for group in groups for place in group for pod in moment.account(place).live]

    async def _scaled(self, moment: Moment, desired: Mapping[Place, int]) -> None:
        """Have Deployments ask for fewer replicas, then for as many more as there is room for."""
        view = moment.view
        flexible = {place for group in changing(view.deployments) for place in group}
        # Of a Deployment of several places, those where a stage does not run are theirs as well.
        theirs = {view.deployments[place]["metadata"]["name"] for place in moment.fixed}
        wanted = {
            place: desired.get(place, 0)
            for place, one in view.deployments.items()
            if one["metadata"]["name"] not in theirs and (place in desired or place in flexible)
        }
        if self._changes.failures:
            for group in changing(view.deployments):
                asked = {place: moment.account(place).asked for place in group if place in wanted}
                wanted |= unchanged(asked, wanted)
        if moment.auto:
            accounts = self._moving(moment, wanted)
            growing = bool(self._growth(moment, wanted))
            shrunk = await self._actuator.shrink(
                view.deployments,
                accounts,
                gradual(accounts, wanted, moment.claim.least, growing=growing),
                lambda: self.mind.remaining(moment),
            )
            if shrunk:
                moment = self._again(moment)
        growth = self._growth(moment, wanted)
        await self._actuator.grow(view.deployments, moment.accounts, growth)

    def _moving(self, moment: Moment, places: Iterable[Place]) -> dict[Place, Account]:
        accounts = {place: moment.account(place) for place in places}
        return self._ledger.moving(moment.claim, accounts, moment.now)

    def _growth(self, moment: Moment, wanted: Mapping[Place, int]) -> dict[Place, int]:
        """Return what Deployments may ask for now, where more is wanted."""
        claim, key = moment.claim, moment.view.key
        entry = entry_of(claim, moment.spec, moment.accounts, ())
        budget = UNBOUNDED if claim.budget is None else claim.budget
        return affordable(
            {place: moment.account(place) for place in wanted},
            wanted,
            {place: seat.accelerators for place, seat in claim.seats.items()},
            {place: seat.pool for place, seat in claim.seats.items()},
            {pool: self._ledger.room(key, pool) for pool in claim.pools},
            budget - entry.held().total() - entry.others,
        )

    def _again(self, moment: Moment) -> Moment:
        """Return the moment with what has just been written, and enter it in the ledger."""
        accounts = self._accounts(moment.view)
        entry = entry_of(moment.claim, moment.spec, accounts, moment.view.pods)
        self._ledger.enter(entry, moment.now)
        return replace(moment, accounts=accounts)

    async def _keep(self, moment: Moment) -> None:
        """Write down what is wanted before it is begun: who comes next goes on with it."""
        text = None if self._intent is None else self._intent.text()
        if text == self._kept:
            return
        key = moment.view.key
        try:
            await self._cluster.annotate(PIPELINE, key.namespace, key.name, {ANNOTATION: text})
        except NotFoundError:
            return  # it is being deleted
        self._kept = text

    def _report(self, moment: Moment, desired: Mapping[Place, int], failure: str) -> Report:
        happened, self._happened = tuple(self._happened), []
        again = min(max(_SOON, self.mind.due(moment)), moment.spec.scaling.period_seconds)
        if failure or any(
            pod.changes_from is not None for one in moment.accounts.values() for pod in one.live
        ):
            again = _SOON
        return reporting.report(
            *(moment, self.mind, self._ledger, desired, self._choice, happened, failure),
            again_after=float(again),
        )
