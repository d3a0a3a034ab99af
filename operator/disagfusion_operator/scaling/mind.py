"""What decides for one pipeline: what is known of it, and the rule that rests on it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace

from disagfusion.balancing.decisions import as_message
from disagfusion.errors import DisagfusionError
from disagfusion.scheduling.decision import Decision, Place
from disagfusion.scheduling.observation import Replicas
from disagfusion.scheduling.performance.model import PairSummary
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.prometheus.readings import Readings, read
from disagfusion_operator.api.base import STAGES
from disagfusion_operator.desired.names import served_name
from disagfusion_operator.scaling.behavior import settings_of, time_scale
from disagfusion_operator.scaling.bounds import Bounds, bounds_at
from disagfusion_operator.scaling.deciding import Decider, Seen, Terms, without
from disagfusion_operator.scaling.first import first_replicas
from disagfusion_operator.scaling.gateways import Correspondent, Gateways, remaining, served
from disagfusion_operator.scaling.knowledge import Knowledge
from disagfusion_operator.scaling.load import Load, Source, unasked
from disagfusion_operator.scaling.moment import Moment
from disagfusion_operator.scaling.profiles import UNBOUNDED
from disagfusion_operator.scaling.view import PipelineView

_DRAIN_SECONDS = 300.0
"""Within which a backlog is to be worked off, where pools are divided by need."""
_GATEWAY_SECONDS = 2.0
_TEACH_SECONDS = 60.0
"""Between two questions to the gateways where there is no work."""
_OLD_PERIODS = 3.0
_LONG_AGO = -1e18


@dataclass(frozen=True, slots=True)
class Senses:
    """What the minds of all pipelines share.

    Attributes:
        load: What Prometheus says.
        gateways: Asks gateways.
        threads: Compute decisions.
        gate: Lets one fit at a time run.
    """

    load: Load
    gateways: Gateways
    threads: Executor
    gate: AbstractAsyncContextManager[object]


class Mind:
    """Of one pipeline.

    Args:
        view: As it is now.
        senses: Shared by all.
        now: Unix seconds; the balancer's clock is at zero then.

    Attributes:
        scale: Real seconds for one of the balancer's clock.
        problem: What is wrong with the specification or the profile; empty: nothing.
        need: Stage → jobs per second that it has to do.
        decision: The last.
        seen: What that rested on.
        readings: What that came from.
        served: Worker → stage, as gateways said it when they were asked last.
        served_at: When that was, in Unix seconds.
    """

    def __init__(self, view: PipelineView, senses: Senses, now: float) -> None:
        self._senses = senses
        self._begun = now
        self.scale = time_scale(view.spec)
        self._decider = Decider(self.scale)
        self._knowledge = Knowledge(view.profile, senses.gate)
        self._correspondent = Correspondent(senses.gateways)
        self._profile: Profile | None = None
        self._profile_terms: tuple[object, ...] = ()
        self._decided_at = self._taught_at = _LONG_AGO
        self._answered_at: float | None = None
        self._teaching: asyncio.Task[None] | None = None
        self._telling: set[asyncio.Task[None]] = set()
        self._news: list[Decision] = []
        self._rows: list[PairSummary] = []
        self.problem = ""
        self.need: Mapping[str, float] = {}
        self.decision: Decision | None = None
        self.seen: Seen | None = None
        self.readings: Readings | None = None
        self.served: Mapping[str, str] = {}
        self.served_at = _LONG_AGO

    async def aclose(self) -> None:
        """End what goes on in the background."""
        if self._teaching is not None:
            self._teaching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._teaching
        for task in self._telling:
            task.cancel()
        await asyncio.gather(*self._telling, return_exceptions=True)
        await self._knowledge.aclose()

    @property
    def knowledge(self) -> Knowledge:
        """What is known."""
        return self._knowledge

    @property
    def asleep(self) -> Mapping[Place, int]:
        """The replicas there were before all stages went to zero; empty: they have not."""
        return dict(self._decider.state.asleep)

    @property
    def resting(self) -> bool:
        """Whether all stages are at zero and nothing calls them back."""
        return bool(self._decider.state.asleep) and not any(self.need.values())

    def fall_asleep(self, asleep: Mapping[Place, int]) -> None:
        """Go on after a restart with all stages at zero."""
        self._decider.state = replace(self._decider.state, asleep=tuple(asleep.items()))

    def wake(self) -> None:
        """Let all stages be there, for as long as they may be without work."""
        self._decider.state = replace(self._decider.state, asleep=(), idle_since=None)

    def clock(self, now: float) -> float:
        """Return the time by the balancer's clock."""
        return (now - self._begun) / self.scale

    def read(self, view: PipelineView, now: float) -> Bounds:
        """Take over what people wrote, and return the bounds of the moment.

        Where something is wrong, nothing is decided; bounds hold without the schedule then.
        """
        spec = view.spec
        self.problem = ""
        if view.profile != self._knowledge.given:
            self._knowledge = Knowledge(view.profile, self._senses.gate)
        try:
            bounds = bounds_at(spec, now)
            settings_of(spec)
            terms = (view.generation, bounds, id(self._knowledge), self._knowledge.lacking)
            if terms != self._profile_terms:
                self._profile = self._knowledge.profile(spec, bounds)
                self._profile_terms = terms
        except DisagfusionError as error:
            self.problem = error.message
            self._profile, self._profile_terms = None, ()
            unscheduled = spec.scaling.model_copy(update={"schedule": ()})
            bounds = bounds_at(spec.model_copy(update={"scaling": unscheduled}), now)
        return bounds

    def places(self, view: PipelineView) -> tuple[Place, ...]:
        """Return where stages can run."""
        if self._profile is None:
            return tuple(Place(*place) for place in view.spec.places())
        stages = self._profile.stages.items()
        return tuple(Place(stage, pool) for stage, what in stages for pool in what.pools)

    def speed(self, place: Place, now: float) -> float:
        """Return the jobs per second of a replica."""
        if self._profile is None:
            return 1.0
        return self._knowledge.speed(self._profile, place, self.clock(now)) / self.scale

    async def first(self, moment: Moment) -> Mapping[Place, int] | None:
        """Return the exact plan for the whole budget; None where it is not known or not wanted."""
        budget = moment.claim.budget
        if self._profile is None or budget is None or not moment.claim.expands:
            return None
        return await asyncio.get_running_loop().run_in_executor(
            self._senses.threads,
            first_replicas,
            *(self._profile, self._knowledge.mix, budget, moment.usable()),
        )

    def due(self, moment: Moment) -> float:
        """Return the seconds until something is to be decided."""
        return max(0.0, self._decided_at + moment.spec.scaling.period_seconds - moment.now)

    async def decide(self, moment: Moment, desired: Mapping[Place, int]) -> Decision | None:
        """Decide, where it is time to.

        Args:
            moment: Now.
            desired: Replicas there should be.
        """
        spec, now = moment.spec, moment.now
        self._follow(moment.view)
        if self.due(moment) > 0.0:
            return None
        if spec.scaling.mode == "Off" or self._profile is None:
            self._decided_at = now
            self._teach(moment)
            return None
        readings = self._read(moment)
        if readings is None:
            return None
        self._decided_at = now
        self._use(moment)
        clock = self.clock(now)
        seen = self._decider.see(
            readings,
            self._knowledge.mix,
            self._replicas(moment, desired),
            moment.usable(),
            self._knowledge.predictor(self._profile, clock),
            clock,
        )
        self.seen, self.readings = seen, readings
        self.need = self._needed(moment, seen)
        self._teach(moment)
        decision = await asyncio.get_running_loop().run_in_executor(
            self._senses.threads, self._decider.decide, seen, clock, moment.view.hold
        )
        if not moment.auto:
            self._decider.forget_changes()
        self._tell(moment, decision)
        self.decision = decision
        self._news.append(decision)
        self._rows = self._knowledge.summary(clock)
        return decision

    def _tell(self, moment: Moment, decision: Decision) -> None:
        """Tell the gateways a decision that changes something or has another reason, if there are.

        Whoever asks them, such as `disagfusion top`, reads it there.
        """
        known = self.decision is not None and self.decision.reason is decision.reason
        doors = moment.view.doors
        if not doors or (known and not decision.moves):
            return
        message = as_message(decision, moment.now, self._decider.name)
        task = asyncio.create_task(
            self._correspondent.tell(doors, message, _GATEWAY_SECONDS),
            name=f"tell {moment.view.key}",
        )
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    def news(self) -> list[Decision]:
        """Return the decisions since this was asked last."""
        news, self._news = self._news, []
        return news

    def summary(self) -> list[PairSummary]:
        """Return the numbers of the model at the last decision."""
        return self._rows

    async def remaining(self, moment: Moment) -> Mapping[str, float]:
        """Return the seconds that pods will still compute; those that are idle are left out."""
        if self._profile is None:
            return {}
        answers = await self._correspondent.ask(moment.view.doors, _GATEWAY_SECONDS)
        self._knowledge.teach(answers, moment.spec, self.clock(moment.now))
        pools = {pod.name: pod.place.pool for one in moment.accounts.values() for pod in one.live}
        predictor = self._knowledge.predictor(self._profile, self.clock(moment.now))
        return remaining(answers, pools, predictor, self.scale)

    def _use(self, moment: Moment) -> None:
        assert self._profile is not None, "nothing is decided without"
        seats = moment.claim.seats
        # Where nothing is carried out, advice is of use also for what others scale.
        fixed = moment.fixed if moment.auto else ()
        held = {place: moment.account(place).asked for place in fixed}
        taken = sum(count * seats[place].accelerators for place, count in held.items())
        budget = UNBOUNDED if moment.bounds.budget is None else moment.bounds.budget
        terms = Terms(
            without(self._profile, held),
            settings_of(moment.spec),
            max(0, budget - taken - moment.others),
        )
        flexes = moment.spec.flexes
        self._decider.use(terms, {place: self._start(place, flexes(place.pool)) for place in seats})

    def _start(self, place: Place, in_place: bool) -> float:
        """Return how long a start takes, or a change of stage in place, by the balancer's clock."""
        know = self._knowledge
        seconds = know.change_seconds if in_place else know.start_seconds
        return seconds(place, self._profile, self.scale) / self.scale

    def _replicas(self, moment: Moment, desired: Mapping[Place, int]) -> dict[Place, Replicas]:
        found = {}
        for place in moment.places:
            start, change = (self._start(place, one) * self.scale for one in (False, True))
            account = moment.account(place)
            one = account.replicas(desired.get(place, 0), start, moment.now, change_seconds=change)
            since = one.starting_since
            found[place] = replace(
                one,
                starting_since=None if since is None else self.clock(since),
                available_at=tuple(self.clock(at) for at in one.available_at),
            )
        return found

    def _follow(self, view: PipelineView) -> None:
        """Have the load asked for, or no longer."""
        scaling = view.spec.scaling
        url = scaling.prometheus.url or view.prometheus_url
        if scaling.mode == "Off" or not url:
            self._senses.load.forget(view.key)
            return
        self._senses.load.watch(
            view.key,
            Source(
                url.rstrip("/"),
                view.prometheus_token,
                scaling.prometheus.matchers,
                float(scaling.prometheus.window_seconds),
                float(scaling.period_seconds),
            ),
            served_name(view.key.name, view.spec),
        )

    def _read(self, moment: Moment) -> Readings | None:
        """Return what Prometheus says; None where an answer is still awaited."""
        scaling, now = moment.spec.scaling, moment.now
        url = scaling.prometheus.url or moment.view.prometheus_url
        answers = self._senses.load.last(moment.view.key)
        patience = _OLD_PERIODS * scaling.period_seconds
        outcomes, at = unasked("no Prometheus is given"), now
        if url and answers is None:
            if now - self._begun < patience:
                return None
            outcomes = unasked(f"{url} has not answered yet")
        elif url and answers is not None:
            if answers.at == self._answered_at and now - answers.at < patience:
                return None
            self._answered_at, at = answers.at, min(now, answers.at)
            outcomes = dict(answers.outcomes)
            if now - answers.at >= patience:
                outcomes = unasked(f"the last answer of {url} is {now - answers.at:.0f} s old")
        window = float(scaling.prometheus.window_seconds)
        scope = Source(url, window=window).scope
        return read(outcomes, STAGES, scope, at - self._begun)

    def _needed(self, moment: Moment, seen: Seen) -> Mapping[str, float]:
        """Return the jobs per second that stages have to do; as before where nobody knows."""
        if not seen.jobs:
            return self.need
        rate = seen.rate or 0.0
        drain = _DRAIN_SECONDS * self.scale
        headroom = 1.0
        if moment.spec.scaling.objective == "Cost":
            headroom += settings_of(moment.spec).headroom
        return {stage: headroom * rate + count / drain for stage, count in seen.jobs.items()}

    def _teach(self, moment: Moment) -> None:
        """Ask the gateways what they know, in the background."""
        doors = moment.view.doors
        rests = not any(self.need.values()) and not self._knowledge.lacking
        if not doors or self._teaching is not None:
            return
        if rests and moment.now - self._taught_at < _TEACH_SECONDS:
            return
        if moment.now - self._taught_at < moment.spec.scaling.period_seconds:
            return
        self._taught_at = moment.now

        async def teach() -> None:
            try:
                answers = await self._correspondent.ask(doors, _GATEWAY_SECONDS)
                self.served, self.served_at = served(answers), moment.now
                self._knowledge.teach(answers, moment.spec, self.clock(moment.now))
            finally:
                self._teaching = None

        self._teaching = asyncio.create_task(teach(), name=f"teach {moment.view.key}")
