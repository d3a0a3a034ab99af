"""`disagfusion profile`: what it refuses before it measures, and how it tells its progress."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from disagfusion.cli import app
from disagfusion.cli.profile import progress


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--out", "/nosuch/x.yaml"), "--out: there is no directory /nosuch (expected a file"),
        (("--out", "/tmp"), "--out: /tmp is a directory"),
        (("--pool", "a b"), "--pool: 'a b' (expected 1 to 63 of a-z, 0-9 and hyphens"),
        (("--pool", ""), "--pool: ''"),
        (("--num-inference-steps", "0"), "--num-inference-steps: '0' (expected whole numbers"),
        (("--heights", "64,-8"), "--heights: '64,-8' (expected whole numbers from 1"),
        (("--widths", "wide"), "--widths: 'wide' (expected whole numbers from 1"),
        (("--device", "emulated:a10"), "--device: emulated devices cannot be measured (expected"),
    ],
)
def test_arguments_are_judged_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: tuple[str, ...],
    text: str,
) -> None:
    def start(*given: object, **named: object) -> None:
        raise AssertionError("a system is started")

    monkeypatch.setattr("disagfusion.local.LocalRuntime", start)
    given = {"--out": str(tmp_path / "p.yaml"), **dict([arguments])}
    with pytest.raises(SystemExit) as left:
        app.main(["profile", *(word for pair in given.items() for word in pair)])
    err = capsys.readouterr().err
    assert (left.value.code, len(err.splitlines())) == (2, 1)
    assert text in err
    assert not (tmp_path / "p.yaml").exists()


@pytest.mark.parametrize(("terminal", "text"), [(False, "1/2\n2/2\n"), (True, "1/2\r2/2\r\n")])
def test_an_error_does_not_hang_on_the_progress(terminal: bool, text: str) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=terminal, width=80)

    def fail() -> None:
        with progress(console) as tell:
            tell("1/2")
            tell("2/2")
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        fail()
    assert file.getvalue() == text
