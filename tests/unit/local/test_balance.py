"""What a balanced system is made of."""

from __future__ import annotations

import pytest

from disagfusion.errors import InvalidArgumentError
from disagfusion.local import LocalRuntime
from disagfusion.local.balance import Balance, resolve_balance
from disagfusion.scheduling.profile import Profile

REPLICAS = {"encoder": 1, "dit": 2, "decoder": 1}


def profile(**pools: int) -> Profile:
    costs = {name: {"seconds": 1} for name in pools}
    return Profile.model_validate(
        {
            "pools": {name: {"accelerators": count} for name, count in pools.items()},
            "stages": {stage: {"pools": costs} for stage in REPLICAS},
        }
    )


def test_an_emulated_system_may_use_all_that_its_profile_has() -> None:
    devices = {f"{s}-{i}": "emulated:a" for s, n in REPLICAS.items() for i in range(n)}
    found = resolve_balance(Balance(), REPLICAS, devices, profile(a=6), None)
    assert (found.budget, found.spares) == (6, ("spare-0", "spare-1"))
    assert found.devices == {"spare-0": "emulated:a", "spare-1": "emulated:a"}
    assert set(found.pools.values()) == {"a"}


def test_a_real_system_keeps_to_its_first_workers_unless_told() -> None:
    found = resolve_balance(Balance(profile(a=8)), REPLICAS, {}, None, None)
    assert (found.budget, found.spares) == (4, ())
    found = resolve_balance(Balance(profile(a=8), budget=5), REPLICAS, {}, None, None)
    assert (found.budget, found.spares, dict(found.devices)) == (5, ("spare-0",), {})


def test_where_signals_come_from_is_judged_and_passed_on() -> None:
    given = Balance(profile(a=4), signals="prometheus:https://h/path", signals_window=20.0)
    found = resolve_balance(given, REPLICAS, {}, None, None)
    assert (found.signals, found.signals_window) == ("prometheus:https://h/path", 20.0)
    for signals, window, field in (
        ("graphite:http://h", 60.0, "balance_signals"),
        ("prometheus:h:9090", 60.0, "balance_signals"),
        ("prometheus:http://h", 0.0, "signals_window"),
        ("prometheus:http://h", float("nan"), "signals_window"),
    ):
        wrong = Balance(profile(a=4), signals=signals, signals_window=window)
        with pytest.raises(InvalidArgumentError) as refused:
            resolve_balance(wrong, REPLICAS, {}, None, None)
        assert refused.value.field == field


def test_every_pool_with_room_has_spare_workers() -> None:
    found = resolve_balance(Balance(profile(a=4, b=2), budget=5), REPLICAS, {}, None, "a")
    assert [found.pools[name] for name in found.spares] == ["b", "b"]


@pytest.mark.parametrize(
    ("given", "pool", "field"),
    [
        (Balance(), None, "balance_profile"),
        (Balance(profile(a=3)), None, "balance"),
        (Balance(profile(a=8), budget=3), None, "budget"),
        (Balance(profile(a=4, b=2)), None, "pool"),
        (Balance(profile(a=4)), "c", "pool"),
    ],
)
def test_what_does_not_fit_is_refused(given: Balance, pool: str | None, field: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        resolve_balance(given, REPLICAS, {}, None, pool)
    assert refused.value.field == field


def test_real_devices_need_a_profile() -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        LocalRuntime(balance=True)
    assert refused.value.field == "balance_profile"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"zero_after": "x"}, "balance.settings.zero_after: 'x' (expected a valid number)"),
        ({"tolerance": -1}, "balance.settings.tolerance: -1 (expected from 0 to below 1)"),
        ({"period": "5"}, "balance.settings.period: '5' (expected a valid number)"),
        ({"period": 0}, "balance.settings.period: 0 (expected above 0)"),
        ({"period": float("inf")}, "balance.settings.period: inf (expected what JSON can hold)"),
        ({"delays": [10, -1]}, "balance.settings.delays: -1 (expected above 0)"),
        ({"paused": 1}, "balance.settings.paused: 1 (expected a valid boolean)"),
        ({"sizing": "all"}, "balance.settings.sizing: 'all' (expected 'budget' or 'demand')"),
        ({"pool": "a"}, "balance.settings.pool: there is no such setting (expected period, pa"),
        ({"behavior": {"upp": {}}}, "balance.settings.behavior.upp: there is no such setting"),
        ({"weight_last": 0, "weight_mean": 0, "weight_p95": 0}, "all weights are 0"),
    ],
)
def test_settings_are_checked_before_anything_starts(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        resolve_balance(Balance(profile(a=4), settings=settings), REPLICAS, {}, None, None)
    assert message in refused.value.message


def test_settings_that_are_all_right() -> None:
    settings = {"period": 5, "delays": [10, 20.5], "zero_after": 0, "behavior": {}}
    given = Balance(profile(a=4), settings=settings)
    assert resolve_balance(given, REPLICAS, {}, None, None).settings == settings


def test_minima_that_the_budget_does_not_hold_are_refused() -> None:
    costs = profile(a=8)
    encoder = costs.stages["encoder"].model_copy(update={"min": 3})
    costs = costs.model_copy(update={"stages": {**costs.stages, "encoder": encoder}})
    replicas = dict.fromkeys(REPLICAS, 1)
    with pytest.raises(InvalidArgumentError) as refused:
        resolve_balance(Balance(costs, budget=3), replicas, {}, None, None)
    assert refused.value.message == (
        "budget: the stages' minima take 5 accelerators, the budget is 3"
    )
    assert resolve_balance(Balance(costs, budget=5), replicas, {}, None, None).budget == 5


@pytest.mark.parametrize(("budget", "expected"), [(20, "at most the 8 acc"), (0, "1 or more")])
def test_a_budget_that_can_never_be(budget: int, expected: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        resolve_balance(Balance(profile(a=8), budget=budget), REPLICAS, {}, None, None)
    assert refused.value.message.startswith(f"budget: {budget} (expected {expected}")
