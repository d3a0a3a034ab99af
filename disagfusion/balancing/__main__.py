"""The balancer's process: `python -m disagfusion.balancing`, started by the supervisor."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from pathlib import Path

from pydantic import ValidationError

from disagfusion.balancing.actuator import LocalActuator
from disagfusion.balancing.control import SupervisorControl
from disagfusion.balancing.decisions import Decisions
from disagfusion.balancing.exporter import Exporter
from disagfusion.balancing.learner import Learner
from disagfusion.balancing.loop import Loop
from disagfusion.balancing.scraped import ScrapedSignals, Targets
from disagfusion.balancing.settings import BalancingSettings
from disagfusion.balancing.signals import EmbeddedSignals
from disagfusion.errors import DisagfusionError, InvalidArgumentError
from disagfusion.local.balance import PROMETHEUS
from disagfusion.scheduling.balancer.hybrid import Hybrid
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
from disagfusion.telemetry import logging, metrics

_STALE_PERIODS = 3
_LEAST_CHANGE_SECONDS = 60.0

_log = logging.get_logger(__name__)


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
        InvalidArgumentError: There is no such setting.
    """
    # What takes its time by the profile is scaled; the start of a process is not.
    scaled = {"change_timeout": _LEAST_CHANGE_SECONDS / settings.time_scale}
    defaults = scaled if scaled["change_timeout"] > BalancerSettings().change_timeout else {}
    try:
        return BalancerSettings(**{**defaults, **settings.balance})
    except TypeError as error:
        known = ", ".join(field.name for field in dataclasses.fields(BalancerSettings))
        raise InvalidArgumentError("balance", str(error), expected=known) from error


def make_loop(
    settings: BalancingSettings, learner: Learner, profile: Profile, stack: ExitStack
) -> tuple[Loop[State], str]:
    """Return the loop that the settings describe, and where its metrics are.

    Args:
        settings: The process's.
        learner: Has the performance model.
        profile: Stages and pools.
        stack: Closes what was opened.

    Raises:
        DisagfusionError: A setting is wrong, or the address of the metrics is in use.
    """
    behavior = behavior_of(settings)
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
        address = metrics.serve(settings.metrics_listen, registry).address
    rule = _rule(profile, behavior, budget)
    loop = Loop(
        rule,
        _source(settings, embedded, stack),
        _actuator(settings, embedded, control, profile, learner, waiting, budget),
        _recorder(settings, rule.name, exported, exporter),
        time_scale=settings.time_scale,
    )
    return loop, address


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


def _rule(profile: Profile, behavior: BalancerSettings, budget: int) -> Hybrid:
    return Hybrid(
        profile,
        ProfilePredictor(profile),
        lambda place: profile.load_seconds(place.stage, place.pool),
        behavior,
        budget=budget,
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


async def serve(settings: BalancingSettings) -> None:
    """Balance until SIGTERM or SIGINT.

    Raises:
        DisagfusionError: It cannot begin.
    """
    profile = read_profile(settings.balance_profile)
    learner = Learner(profile)
    with ExitStack() as stack:
        loop, address = make_loop(settings, learner, profile, stack)
        _log.info("balancer runs", workers=len(settings.balanced_workers), metrics=address)
        if settings.ready_file is not None:
            _write_ready(settings.ready_file, address)
        work = asyncio.create_task(loop.run())
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, work.cancel)
        try:
            await work
        except asyncio.CancelledError:
            _log.info("balancer ends")
        finally:
            await learner.aclose()


def _write_ready(path: Path, metrics_address: str) -> None:
    ready = {"pid": os.getpid(), "address": "", "metrics_address": metrics_address}
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(ready))
    os.replace(temporary, path)


def main() -> None:
    """Run with settings from the environment."""
    try:
        settings = BalancingSettings()  # type: ignore[call-arg]  # from the environment
        logging.configure(
            settings.log_format,
            settings.log_level,
            component="balancer",
            pipeline=settings.pipeline,
        )
        asyncio.run(serve(settings))
    except ValidationError as error:
        problems = "; ".join(
            f"DISAGFUSION_{'.'.join(map(str, e['loc'])).upper()}: {e['msg']}"
            for e in error.errors()
        )
        sys.exit(f"disagfusion-balancer: {problems}")
    except DisagfusionError as error:
        sys.exit(f"disagfusion-balancer: {error.message}")


if __name__ == "__main__":
    main()
