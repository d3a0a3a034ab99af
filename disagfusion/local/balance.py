"""What the embedded system's balancer works with."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from disagfusion.errors import InvalidArgumentError
from disagfusion.stage.devices import emulated_device, emulated_pool, is_emulated

if TYPE_CHECKING:
    from disagfusion.scheduling.profile import Profile

SPARE = "spare"
"""What workers are called that have no stage at the start."""

PROMETHEUS = "prometheus"
"""What precedes a URL where signals come from a Prometheus."""

# As the command line has it, where another profile is that of emulated devices.
_PROFILE = "balance_profile"


@dataclass(frozen=True, slots=True)
class Balance:
    """How the embedded system is balanced.

    Attributes:
        profile: What stages cost on which accelerators, or its file; that of the emulated devices
            where none is given. Real ones need it: it is what is believed before jobs have ended.
        budget: Accelerators in use at most; all of the profile's where the system is emulated,
            those of the first workers otherwise.
        settings: Fields of `disagfusion.scheduling.balancer.settings.BalancerSettings`, such as
            `{"period": 5}`; seconds are the profile's.
        signals: Where jobs and loads are read: `prometheus:URL`; empty: the gateway is asked.
        signals_window: Seconds over which Prometheus takes rates, at least four scrape intervals.
            A sample that is half as old is not acted upon.
        calibrate: Whether the balancer tries its own parameters again on the jobs of late; those
            in `settings` stay as they are.
    """

    profile: str | os.PathLike[str] | Profile | None = None
    budget: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    signals: str = ""
    signals_window: float = 60.0
    calibrate: bool = True


@dataclass(frozen=True, slots=True)
class ResolvedBalance:
    """The same, judged.

    Attributes:
        profile: What stages cost.
        budget: Accelerators in use at most.
        settings: As given.
        signals: As given.
        signals_window: As given.
        calibrate: As given.
        pools: Of every worker, spare ones included.
        devices: Of spare workers that were given none.
    """

    profile: Profile
    budget: int
    settings: Mapping[str, Any]
    signals: str
    signals_window: float
    calibrate: bool
    pools: Mapping[str, str]
    devices: Mapping[str, str]

    @property
    def spares(self) -> tuple[str, ...]:
        """Names of the workers without a stage."""
        return tuple(name for name in self.pools if name.rpartition("-")[0] == SPARE)

    def write(self, directory: Path) -> Path:
        """Write the profile to a directory; return the file."""
        file = directory / "balance.json"
        file.write_text(json.dumps(self.profile.model_dump(exclude_none=True)))
        return file


def resolve_balance(
    given: Balance,
    replicas: Mapping[str, int],
    devices: Mapping[str, str],
    emulated: Profile | None,
    pool: str | None,
) -> ResolvedBalance:
    """Judge how a system is to be balanced.

    Args:
        given: As asked for.
        replicas: How many workers of each stage at the start.
        devices: Of workers, where known.
        emulated: The profile of an emulated system.
        pool: Of all workers of a real one; its profile's only one where it is not given.

    Raises:
        InvalidArgumentError: Something is missing, or does not fit the rest.
    """
    _check_settings(given)
    profile = _profile(given, emulated)
    missing = [stage for stage in replicas if stage not in profile.stages]
    if missing:
        raise InvalidArgumentError(
            _PROFILE, f"it has no stage {missing[0]}", expected=", ".join(replicas)
        )
    workers = {f"{stage}-{i}": stage for stage, n in replicas.items() for i in range(n)}
    pools = {name: _pool_of(name, devices, profile, pool) for name in workers}
    used: Counter[str] = Counter()
    for name, stage in workers.items():
        if pools[name] not in profile.stages[stage].pools:
            raise InvalidArgumentError(
                _PROFILE, f"it does not say how fast the {stage} is on {pools[name]}"
            )
        used[pools[name]] += profile.stages[stage].pools[pools[name]].accelerators
    for name, count in used.items():
        if count > profile.pools[name].accelerators:
            raise InvalidArgumentError(
                "balance",
                f"the first workers take {count} accelerators of {name}",
                expected=f"at most the profile's {profile.pools[name].accelerators}",
            )
    total = sum(used.values())
    everything = sum(one.accelerators for one in profile.pools.values())
    budget = given.budget or (everything if emulated is not None else total)
    if budget < total:
        raise InvalidArgumentError(
            "budget", str(budget), expected=f"at least the {total} that the first workers take"
        )
    if budget > everything:
        raise InvalidArgumentError(
            "budget", str(budget), expected=f"at most the {everything} accelerators of the profile"
        )
    _check_minima(profile, budget)
    spares = _spares(profile, used, budget - total)
    found = {
        f"{SPARE}-{i}": emulated_device(name)
        for i, name in enumerate(spares)
        if emulated is not None
    }
    pools |= {f"{SPARE}-{i}": name for i, name in enumerate(spares)}
    _check_signals(given)
    return ResolvedBalance(
        profile,
        budget,
        dict(given.settings),
        given.signals,
        given.signals_window,
        given.calibrate,
        pools,
        found,
    )


def _check_settings(given: Balance) -> None:
    # Only a balanced system needs what reads settings.
    from disagfusion.scheduling.balancer.reading import read_settings

    read_settings(given.settings, "balance.settings")
    budget = given.budget
    if budget is not None and (type(budget) is not int or budget < 1):
        raise InvalidArgumentError("budget", repr(budget), expected="1 or more accelerators")


def _check_minima(profile: Profile, budget: int) -> None:
    """Refuse, as a plan would, minima that can never be kept."""
    from disagfusion.scheduling.conflict import find_conflict
    from disagfusion.scheduling.demand import Demand
    from disagfusion.scheduling.instance import Instance

    anywhere = find_conflict(Instance(profile, Demand(), None, None))
    conflict = anywhere or find_conflict(Instance(profile, Demand(), budget, None))
    if conflict:
        raise InvalidArgumentError(_PROFILE if anywhere else "budget", conflict)


def _check_signals(given: Balance) -> None:
    if not given.signals_window > 0.0 or math.isinf(given.signals_window):
        raise InvalidArgumentError(
            "signals_window", f"{given.signals_window:g}", expected="seconds, above 0"
        )
    if not given.signals:
        return
    from pydantic import ValidationError

    from disagfusion.signals.settings import PrometheusSettings

    kind, _, url = given.signals.partition(":")
    problem = "" if kind == PROMETHEUS else given.signals
    try:
        PrometheusSettings(url=url)
    except ValidationError as error:
        problem = problem or f"{url}: {error.errors()[0]['msg'].removeprefix('Value error, ')}"
    if problem:
        raise InvalidArgumentError(
            "balance_signals", problem, expected=f"{PROMETHEUS}:http://HOST:PORT"
        )


def _profile(given: Balance, emulated: Profile | None) -> Profile:
    if given.profile is None:
        if emulated is None:
            raise InvalidArgumentError(
                _PROFILE, "is missing", expected="a file that says what stages cost"
            )
        return emulated
    if isinstance(given.profile, str | os.PathLike):
        # Only a balanced or emulated system needs what reads profiles.
        from disagfusion.emulation.profiles import read_profile

        try:
            return read_profile(Path(given.profile))
        except InvalidArgumentError as error:
            raise InvalidArgumentError(_PROFILE, error.message.removeprefix("profile: ")) from error
    return given.profile


def _pool_of(name: str, devices: Mapping[str, str], profile: Profile, pool: str | None) -> str:
    device = devices.get(name, "")
    if is_emulated(device):
        return emulated_pool(device)
    chosen = pool or (next(iter(profile.pools)) if len(profile.pools) == 1 else "")
    if chosen not in profile.pools:
        raise InvalidArgumentError(
            "pool", repr(chosen), expected="one of the profile's: " + ", ".join(profile.pools)
        )
    return chosen


def _spares(profile: Profile, used: Mapping[str, int], room: int) -> list[str]:
    """Return the pools of workers for which there could be room beside the first ones."""
    free = [
        name
        for name, pool in profile.pools.items()
        for _ in range(pool.accelerators - used.get(name, 0))
    ]
    # With several pools, which of them the budget is spent on is the balancer's to say.
    return free if len(profile.pools) > 1 else free[:room]
