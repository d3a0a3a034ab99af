"""The balancer's process, put together from its settings."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from disagfusion.balancing.actuator import LocalActuator
from disagfusion.balancing.calibrator import Calibrator
from disagfusion.balancing.control import SupervisorControl
from disagfusion.balancing.decisions import Decisions
from disagfusion.balancing.exporter import Exporter
from disagfusion.balancing.keeper import Keeper
from disagfusion.balancing.learner import Learner
from disagfusion.balancing.loop import Loop
from disagfusion.balancing.memory import Memory, load
from disagfusion.balancing.rule import SteeredRule
from disagfusion.balancing.scraped import ScrapedSignals, Targets
from disagfusion.balancing.settings import BalancedWorker, BalancingSettings
from disagfusion.balancing.signals import EmbeddedSignals
from disagfusion.errors import InvalidArgumentError
from disagfusion.local.balance import PROMETHEUS
from disagfusion.local.hold import Hold, read_hold
from disagfusion.process import serve_metrics
from disagfusion.scheduling.balancer.hybrid import Hybrid
from disagfusion.scheduling.balancer.reading import read_settings
from disagfusion.scheduling.balancer.settings import BalancerSettings
from disagfusion.scheduling.balancer.state import State
from disagfusion.scheduling.decision import Decision, Place, Reason
from disagfusion.scheduling.document import parse
from disagfusion.scheduling.ports import SignalSource
from disagfusion.scheduling.predictors import ProfilePredictor
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.prometheus.queries import Scope
from disagfusion.signals.prometheus import PrometheusSignals
from disagfusion.signals.settings import PrometheusSettings
from disagfusion.telemetry import metrics

_STALE_PERIODS = 3
_LEAST_CHANGE_SECONDS = 60.0


def read_profile(path: Path) -> Profile:
    """Read a profile.

    Raises:
        InvalidArgumentError: The file cannot be read, or naming what is wrong in it.
    """
    try:
        return parse(Profile, path.read_text(), name=path.name)
    except OSError as error:
        raise InvalidArgumentError(
            "balance_profile", f"cannot read {path}: {error.strerror}"
        ) from error


def behavior_of(settings: BalancingSettings) -> BalancerSettings:
    """Return how the balancer behaves.

    Raises:
        InvalidArgumentError: There is no such setting, or it cannot be that.
    """
    # What takes its time by the profile is scaled; the start of a process is not.
    scaled = {"change_timeout": _LEAST_CHANGE_SECONDS / settings.time_scale}
    defaults = scaled if scaled["change_timeout"] > BalancerSettings().change_timeout else {}
    return read_settings({**defaults, **settings.balance}, "balance")


@dataclass(frozen=True, slots=True)
class Parts:
    """What the process runs.

    Attributes:
        loop: Decides.
        learner: Has the performance model.
        calibrator: Has the parameters; None where they stay as they are.
        keeper: Saves what was learned.
        metrics_address: Where the metrics are; empty: nowhere.
    """

    loop: Loop[State]
    learner: Learner
    calibrator: Calibrator | None
    keeper: Keeper
    metrics_address: str


def assemble(settings: BalancingSettings, stack: ExitStack) -> Parts:
    """Return what the settings describe.

    Args:
        settings: The process's.
        stack: Closes what was opened.

    Raises:
        DisagfusionError: A setting is wrong, or the address of the metrics is in use.
    """
    profile = read_profile(settings.balance_profile)
    behavior = behavior_of(settings)
    memory = _memory(settings, profile)
    learner = Learner(profile, memory)
    total = sum(pool.accelerators for pool in profile.pools.values())
    budget = total if settings.balance_budget is None else settings.balance_budget
    control = SupervisorControl(settings.control, settings.patience_seconds)
    waiting: list[Place] = []
    embedded = EmbeddedSignals(
        settings.fleet_address,
        control,
        profile,
        {name: one.pool for name, one in settings.balanced_workers.items()},
        learner,
        waiting,
        time_scale=settings.time_scale,
        patience=settings.patience_seconds,
        stale_after=_STALE_PERIODS * behavior.period,
        gateway=("", 0) if memory is None else (memory.gateway, memory.samples_cursor),
    )
    registry = metrics.new_registry("balancer")
    exported = metrics.BalancerMetrics(
        registry, pipeline=settings.pipeline, reasons=[reason.name.lower() for reason in Reason]
    )
    exporter = Exporter(
        exported, settings.pipeline, profile, embedded, waiting, learner, budget=budget
    )
    address = ""
    if settings.metrics_listen:
        address = serve_metrics(settings.metrics_listen, registry).address
    calibrator = None
    # Who only looks on needs no better parameters.
    if settings.balance_calibration and not behavior.paused:
        calibrator = Calibrator(
            behavior,
            settings.balance,
            profile,
            budget,
            exported,
            tuned=memory.parameters if memory else {},
        )
    fallback = first_ratio(settings.balanced_workers, profile)
    rule = SteeredRule(
        lambda chosen: _rule(profile, chosen, budget, fallback),
        behavior,
        lambda: _hold(settings.hold_file, exported),
        calibrator,
    )
    loop = Loop(
        rule,
        _source(settings, embedded, stack),
        _actuator(settings, embedded, control, profile, learner, waiting, budget),
        _recorder(settings, rule.name, exported, exporter),
        time_scale=settings.time_scale,
    )
    keeper = Keeper(
        settings.memory_file,
        settings.pipeline,
        learner,
        embedded,
        lambda: calibrator.tuned if calibrator else {},
        lambda: loop.now,
    )
    return Parts(loop, learner, calibrator, keeper, address)


def _memory(settings: BalancingSettings, profile: Profile) -> Memory | None:
    if settings.memory_file is None:
        return None
    return load(
        settings.memory_file,
        settings.pipeline,
        profile,
        time=time.time(),
        time_scale=settings.time_scale,
    )


def _hold(file: Path | None, exported: metrics.BalancerMetrics) -> Hold | None:
    hold = None if file is None else read_hold(file)
    exported.held(hold is not None)
    return hold


def _actuator(
    settings: BalancingSettings,
    embedded: EmbeddedSignals,
    control: SupervisorControl,
    profile: Profile,
    learner: Learner,
    waiting: list[Place],
    budget: int,
) -> LocalActuator:
    return LocalActuator(
        embedded,
        control,
        profile,
        {name: one.address for name, one in settings.balanced_workers.items()},
        {name: one.pool for name, one in settings.balanced_workers.items()},
        learner,
        waiting,
        budget=budget,
        time_scale=settings.time_scale,
        patience=settings.patience_seconds,
        tls=settings.tls,
    )


def first_ratio(workers: Mapping[str, BalancedWorker], profile: Profile) -> dict[Place, int]:
    """Return the replicas that the system began with: a worker is called after its first stage."""
    stages = {name: name.rpartition("-")[0] for name in workers}
    return dict(
        Counter(
            Place(stages[name], one.pool)
            for name, one in workers.items()
            if stages[name] in profile.stages
        )
    )


def _rule(
    profile: Profile, behavior: BalancerSettings, budget: int, fallback: Mapping[Place, int]
) -> Hybrid:
    return Hybrid(
        profile,
        ProfilePredictor(profile),
        lambda place: profile.load_seconds(place.stage, place.pool),
        behavior,
        budget=budget,
        fallback=fallback,
        loads_ahead=lambda place: profile.pools[place.pool].load_ahead,
    )


def _recorder(
    settings: BalancingSettings,
    balancer: str,
    exported: metrics.BalancerMetrics,
    exporter: Exporter,
) -> Callable[[Decision], Awaitable[None]]:
    decisions = Decisions(
        settings.decision_log,
        settings.fleet_address,
        balancer,
        exported,
        patience=settings.patience_seconds,
    )

    async def record(decision: Decision) -> None:
        exporter.export(decision)
        await decisions.record(decision, time.time())

    return record


def _source(
    settings: BalancingSettings, embedded: EmbeddedSignals, stack: ExitStack
) -> SignalSource:
    if not settings.balance_signals:
        return embedded
    scope = Scope(
        settings.pipeline, window=settings.signals_window, stale=settings.signals_window / 2.0
    )
    signals = PrometheusSignals(
        PrometheusSettings(
            url=settings.balance_signals.removeprefix(f"{PROMETHEUS}:"),
            timeout_seconds=settings.patience_seconds,
        ),
        scope,
        stages=embedded.stages,
    )
    stack.enter_context(signals)
    targets = Targets(settings.targets_file)
    return ScrapedSignals(embedded, signals, targets, time_scale=settings.time_scale)
