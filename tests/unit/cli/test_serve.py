"""How `disagfusion serve` reads what is emulated."""

from __future__ import annotations

from pathlib import Path

import pytest

from disagfusion.cli import app
from disagfusion.cli.serve import parse_balance, parse_devices
from disagfusion.errors import InvalidArgumentError
from disagfusion.local import Balance


def test_where_a_balancer_reads() -> None:
    assert parse_balance(False, None, None, None, None, None) is False
    assert parse_balance(True, None, None, None, None, None) == Balance()
    found = parse_balance(True, None, 5.0, 6, "prometheus:http://h:9090", 20.0)
    assert found == Balance(None, 6, {"period": 5.0}, "prometheus:http://h:9090", 20.0)


def test_whether_it_calibrates_itself() -> None:
    for given, expected in ((None, True), (True, True), (False, False)):
        assert parse_balance(True, None, None, None, None, None, given) == Balance(
            calibrate=expected
        )


def test_devices_of_workers() -> None:
    assert parse_devices([]) is None
    everyone = parse_devices(["emulated:a10", "dit-1=cuda:1", "decoder=cpu"])
    assert everyone == {
        "encoder": "emulated:a10", "dit": "emulated:a10", "decoder": "cpu", "dit-1": "cuda:1",
    }  # fmt: skip
    assert parse_devices(["dit=cuda:0"]) == {"dit": "cuda:0"}


@pytest.mark.parametrize("given", [["=cpu"], ["dit="], [""], ["cpu", "cuda"], ["dit=a", "dit=b"]])
def test_devices_that_are_none(given: list[str]) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        parse_devices(given)
    assert refused.value.field == "--device"


WAN = Path(__file__).parents[3] / "examples" / "profiles" / "wan2.2-i2v-480p.yaml"
A10 = ("--profile", str(WAN), "--device", "emulated:a10")
BALANCED = (*A10, "--balance")
# A profile of the same stages on another pool.
ELSEWHERE = WAN.parents[2] / "tests" / "integration" / "balancing" / "profile.yaml"


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--balance",), "balance_profile: is missing"),
        ((*BALANCED, "--budget", "2"), "budget: 2 (expected at least the 3 that"),
        ((*BALANCED, "--budget", "0"), "'--budget'"),
        ((*BALANCED, "--budget", "many"), "'--budget'"),
        ((*BALANCED, "--balance-period", "0"), "--balance-period: 0 (expected above 0)"),
        ((*BALANCED, "--balance-period", "nan"), "--balance-period: nan"),
        ((*BALANCED, "--balance-profile", "/no/such"), "balance_profile: cannot read /no/such"),
        ((*BALANCED, "--balance-profile", __file__), "balance_profile: test_serve.py: "),
        ((*BALANCED, "--balance-profile", str(ELSEWHERE)), "balance_profile: it does not say how"),
        ((*BALANCED, "--dits", "9"), "balance: the first workers take 11 accelerators of a10"),
        ((*A10, "--budget", "4"), "--budget: is given (expected --balance beside it)"),
        ((*A10, "--balance-period", "4"), "--balance-period: is given"),
        ((*A10, "--no-balance-calibration"), "--balance-calibration: is given"),
        ((*A10, "--balance-profile", str(WAN)), "--balance-profile: is given"),
        ((*BALANCED, "--balance-signals", "fleet"), "balance_signals: fleet (expected prometheus:"),
        ((*BALANCED, "--balance-signals", "prometheus:"), "balance_signals: : http://host:port"),
        ((*BALANCED, "--balance-signals", "prometheus:ftp://h"), "balance_signals: ftp://h: http"),
        ((*BALANCED, "--signals-window", "9"), "(expected --balance-signals beside it)"),
        (
            (*BALANCED, "--balance-signals", "prometheus:http://h:9", "--signals-window", "0"),
            "--signals-window: 0 (expected above 0)",
        ),
        ((*A10, "--balance-signals", "prometheus:http://h:9"), "--balance-signals: is given"),
        (("--device", "emulated:a10"), "profile: is missing"),
        (("--profile", "/no/such.yaml"), "device: not every worker's is emulated"),
        (("--profile", "/no/such.yaml", "--device", "emulated:a10"), "cannot read /no/such.yaml"),
        (("--device", "vae=cpu"), "there is no vae"),
        (("--monolith", "resident"), "profile: is missing"),
    ],
)
def test_a_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], text: str
) -> None:
    with pytest.raises(SystemExit) as left:
        app.main(["serve", *arguments])
    assert left.value.code == 2
    out, err = capsys.readouterr()
    assert (out, len(err.splitlines())) == ("", 1)
    assert text in err
