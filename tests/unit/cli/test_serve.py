"""How `disagfusion serve` reads what is emulated."""

from __future__ import annotations

import pytest

from disagfusion.cli import app
from disagfusion.cli.serve import parse_devices
from disagfusion.errors import InvalidArgumentError


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


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
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
