"""One look at one pipeline: what there is, what there should be, what is done about it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field

from disagfusion.emulation.profiles import check_pipeline
from disagfusion.errors import (
    AbortedError,
    DisagfusionError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    UnavailableError,
)
from disagfusion.scheduling.profile import Profile
from disagfusion.telemetry.logging import get_logger
from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.api.reading import Metadata, read_metadata
from disagfusion_operator.desired.inputs import Inputs, Release
from disagfusion_operator.desired.names import FINALIZER, INTERNAL_PORT, served_name
from disagfusion_operator.k8s.port import Cluster, Object
from disagfusion_operator.k8s.states import is_over, is_ready, seconds_of
from disagfusion_operator.reconcile import status as statuses
from disagfusion_operator.reconcile.apply import Applier
from disagfusion_operator.reconcile.cache import Cache
from disagfusion_operator.reconcile.doors import Doors, Ways
from disagfusion_operator.reconcile.gateways import Fleet, Gateways
from disagfusion_operator.reconcile.leaving import Leaving, may_go
from disagfusion_operator.reconcile.objects import Objects
from disagfusion_operator.reconcile.observe import Observed, observe
from disagfusion_operator.reconcile.outcome import Kind, Outcome, failed, waits, worst
from disagfusion_operator.reconcile.problems import find
from disagfusion_operator.reconcile.queue import Look
from disagfusion_operator.reconcile.replacing import replaced
from disagfusion_operator.reconcile.rollout import (
    Turn,
    needs_fleet,
    turns,
    versions_of,
)
from disagfusion_operator.reconcile.specs import Specs
from disagfusion_operator.reconcile.strays import Strays
from disagfusion_operator.reconcile.surroundings import Profiles
from disagfusion_operator.reconcile.tokens import Tokens
from disagfusion_operator.reconcile.writer import Writer
from disagfusion_operator.scaling.controller import Scaling
from disagfusion_operator.scaling.report import Report
from disagfusion_operator.scaling.view import ClusterView, Key, PipelineView

_SOON = 2.0
"""Seconds until the next look where something is waited for that tells nobody when it happens."""
_UNREADY = 10.0
"""The same where replicas do not become ready: their workers are asked why."""

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """How looks are made.

    Attributes:
        resync: Seconds until the next look where nothing happens.
        prometheus_url: Where load is read, where a pipeline does not say it.
        gateway_port: At which gateways are asked.
    """

    resync: float = 30.0
    prometheus_url: str = ""
    gateway_port: int = INTERNAL_PORT


@dataclass(slots=True)
class _Pass:
    """What a look has found out so far."""

    key: Key
    metadata: Metadata
    spec: Spec
    resource: Object
    observed: Observed
    inputs: Inputs
    ways: Ways = field(default_factory=Ways)
    fleet: Fleet | None = None
    turns: dict[str, Turn] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    report: Report | None = None


class Reconciler:
    """Looks at pipelines.

    Args:
        cluster: The API server.
        cache: What is known of it.
        gateways: How gateways are talked to.
        scaling: Decides how many replicas there are.
        release: What the installation decides.
        settings: How looks are made.
        now: Unix seconds.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        cluster: Cluster,
        cache: Cache,
        gateways: Gateways,
        scaling: Scaling,
        release: Release,
        settings: Settings,
        *,
        now: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self._cluster = cluster
        self._cache = cache
        self._scaling = scaling
        self._release = release
        self._settings = settings
        self._now = now
        self._applier = Applier(cluster, cache)
        self._objects = Objects(cluster, cache, self._applier, Strays(cache, clock, now))
        self._tokens = Tokens(cluster, clock)
        self._profiles = Profiles(cluster, clock)
        self._writer = Writer(cluster, cache, now, clock)
        self._specs = Specs(cache)
        self._doors = Doors(gateways, self._tokens, settings.gateway_port, now=now, clock=clock)

    async def look(self, key: Key) -> Look:
        """Look at a pipeline.

        Raises:
            DisagfusionError: The API server is away, or refuses the status.
        """
        resource = self._cache.pipeline(key)
        if resource is None:
            return self._remember(key)
        metadata = read_metadata(resource)
        spec = self._specs.of(key, resource)
        if isinstance(spec, InvalidArgumentError):
            if metadata.deletion_timestamp:
                await self._writer.let_go(metadata)
                return Look(None)
            # What the balancer knows stays: what runs goes on, and holds what it has.
            self._scaling.hold(key, self._cache.pods(key))
            await self._writer.invalid(resource, spec.message)
            return Look(self._settings.resync)
        observed = observe(self._cache, key, spec)
        inputs = Inputs(key.namespace, key.name, metadata.uid, spec, self._release)
        state = _Pass(key, metadata, spec, resource, observed, inputs)
        if metadata.deletion_timestamp:
            return await self._leave(state)
        return await self._serve(state)

    def close(self) -> None:
        """Leave nothing behind."""
        self._tokens.close()

    # A pipeline that is to be there.

    async def _serve(self, state: _Pass) -> Look:
        try:
            await self._arrange(state)
        except UnavailableError:
            raise
        except DisagfusionError as error:
            _log.warning("step failed", pipeline=str(state.key), problem=error.message)
            state.outcomes.append(_outcome_of(error))
            self._scaling.hold(state.key, state.observed.stage_pods)
        outcome = worst(state.outcomes)
        await self._tell(state, outcome)
        again = self._settings.resync
        if state.report is not None:
            again = min(again, max(_SOON / 4, state.report.again_after))
        if outcome.kind is Kind.WAITS or any(turn.old for turn in state.turns.values()):
            again = min(again, _SOON)
        elif not _all_ready(state.observed):
            again = min(again, _UNREADY)
        return Look(again, failed=outcome.kind is Kind.FAILED)

    async def _arrange(self, state: _Pass) -> None:
        await self._writer.hold(state.metadata)
        profile = await self._profile(state)
        state.inputs = _with_profile(state.inputs, profile)
        state.ways = await self._doors.find(state.key, state.inputs, state.observed)
        state.outcomes += state.ways.outcomes
        await self._take_turns(state)
        state.outcomes += await self._objects.bring(
            state.key, state.inputs, state.observed, state.turns
        )
        # What was applied just now is in the cache.
        state.observed = observe(self._cache, state.key, state.spec)
        state.report = await self._scale(state, profile)

    async def _profile(self, state: _Pass) -> Profile | None:
        """Return the profile; where it cannot be had, the last one that could, or none.

        Raises:
            InvalidArgumentError: An emulated pipeline has none, or what it is called does not do.
            UnavailableError: The API server is away.
        """
        if state.inputs.emulated:
            check_pipeline(served_name(state.key.name, state.spec))
        try:
            return await self._profiles.of(state.key, state.spec)
        except UnavailableError:
            raise
        except DisagfusionError as error:
            if not isinstance(error, InvalidArgumentError):
                error = InvalidArgumentError("spec.scaling.profile", error.message)
            profile = self._profiles.last(state.key)
            if profile is None and state.inputs.emulated:
                raise error from None
            state.outcomes.append(_outcome_of(error))
            return profile

    async def _take_turns(self, state: _Pass) -> None:
        target = state.inputs.version
        versions = versions_of(
            state.observed.deployments, state.observed.stage_pods, state.observed.strays
        )
        if needs_fleet(target, versions):
            state.fleet = await self._doors.ask(state.key, state.inputs, state.ways, state.observed)
        elif not _all_ready(state.observed):
            state.fleet = await self._doors.ask_why(state.key, state.ways)
        state.turns = turns(target, versions, state.fleet)
        whole = replaced(
            target,
            state.turns,
            state.observed.deployments.keys(),
            state.observed.stage_pods,
            self._now(),
        )
        state.inputs = dataclasses.replace(state.inputs, whole=whole)

    async def _scale(self, state: _Pass, profile: Profile | None) -> Report:
        spec = state.spec
        whole = state.inputs.whole
        rolling = [stage for stage, turn in state.turns.items() if turn.old or stage in whole]
        view = PipelineView(
            key=state.key,
            uid=state.metadata.uid,
            generation=state.metadata.generation,
            annotations=state.metadata.annotations or {},
            spec=spec,
            profile=profile,
            deployments=state.observed.deployments,
            pods=state.observed.stage_pods,
            autoscalers=self._cache.autoscalers(state.key.namespace),
            prometheus_url=spec.scaling.prometheus.url or self._settings.prometheus_url,
            prometheus_token=await self._prometheus_key(state),
            doors=state.ways.doors,
            worker_tls=state.ways.tls,
            hold=f"{' and '.join(rolling)} get a new version" if rolling else "",
        )
        cluster = ClusterView(
            self._cache.nodes(), self._cache.nodes_version, self._specs.readable()
        )
        return await self._scaling.step(view, cluster, self._now())

    async def _prometheus_key(self, state: _Pass) -> str:
        secret = state.spec.scaling.prometheus.bearer_token_secret
        if secret is None:
            return ""
        try:
            return await self._tokens.value(state.key, secret)
        except (NotFoundError, PermissionDeniedError) as error:
            # Prometheus will refuse; replicas that there are need not suffer.
            state.outcomes.append(failed("SecretUnavailable", error.message))
            return ""

    async def _tell(self, state: _Pass, outcome: Outcome) -> None:
        waiting = [turn.why for turn in state.turns.values() if turn.old and not turn.may]
        workers = state.fleet.workers if state.fleet else ()
        pods = (*state.observed.gateway_pods, *state.observed.stage_pods)
        account = statuses.Account(
            namespace=state.key.namespace,
            name=state.key.name,
            generation=state.metadata.generation,
            observed=state.observed,
            problems=find(pods, state.observed.all_deployments, workers, self._now()),
            outcome=outcome,
            rollout=waiting[0] if waiting else "",
            rolling=bool(state.inputs.whole) or any(turn.old for turn in state.turns.values()),
            report=state.report,
            paused=state.spec.scaling.paused,
        )
        await self._writer.write(state.resource, account)

    # A pipeline that is to go.

    async def _leave(self, state: _Pass) -> Look:
        self._hold(state.key, state.metadata.uid, state.spec, state.observed)
        if FINALIZER not in state.metadata.finalizers:
            return Look(self._settings.resync)
        asked = seconds_of(state.metadata.deletion_timestamp)
        left = asked + state.spec.deletion.drain_seconds - self._now()
        served = bool((state.resource.get("status") or {}).get("endpoint"))
        # First of all: what cannot be read or asked must not hold up the end for ever.
        over = may_go(state.observed, served=served, left=left)
        found = Leaving(True)
        if not over:
            found = await self._doors.leave(state.key, state.inputs, state.observed, left=left)
        if found.over:
            await self._writer.let_go(state.metadata)
            return Look(self._settings.resync)
        account = statuses.Account(
            namespace=state.key.namespace,
            name=state.key.name,
            generation=state.metadata.generation,
            observed=state.observed,
            draining=found.message,
        )
        await self._writer.write(state.resource, account)
        return Look(_SOON / 2)

    def _hold(self, key: Key, uid: str, spec: Spec, observed: Observed) -> None:
        # Until they are gone, its pods hold room that others may not have.
        view = PipelineView(
            key=key,
            uid=uid,
            generation=0,
            annotations={},
            spec=spec,
            deployments=observed.deployments,
            pods=observed.stage_pods,
        )
        self._scaling.leave(view, self._now())

    def _remember(self, key: Key) -> Look:
        """Forget a pipeline that is gone, once its pods hold nothing any more."""
        pods = self._cache.pods(key)
        if not pods:
            self._forget(key)
            return Look(None)
        if (known := self._specs.last(key)) is None:
            self._scaling.hold(key, pods)
        else:
            uid, spec = known
            self._hold(key, uid, spec, observe(self._cache, key, spec))
        return Look(self._settings.resync)

    def _forget(self, key: Key) -> None:
        self._scaling.forget(key)
        self._applier.forget(key)
        self._objects.forget(key)
        self._profiles.forget(key)
        self._writer.forget(key)
        self._specs.forget(key)
        self._doors.forget(key)


def _with_profile(inputs: Inputs, profile: Profile | None) -> Inputs:
    if profile is None:
        return inputs
    text = profile.model_dump_json(exclude_none=True) if inputs.emulated else ""
    return dataclasses.replace(inputs, profile=profile, profile_text=text)


def _all_ready(observed: Observed) -> bool:
    # One that has ended stays for hours, for people to look at.
    pods = [pod for pod in (*observed.gateway_pods, *observed.stage_pods) if not is_over(pod)]
    return bool(observed.gateway_pods) and all(map(is_ready, pods))


def _outcome_of(error: DisagfusionError) -> Outcome:
    reason = "".join(part.capitalize() for part in error.reason.split("_"))
    if isinstance(error, AbortedError):
        # Somebody else was quicker, or is to go first: the next look finds out.
        return waits(reason, error.message)
    return failed(reason, error.message)
