"""The steps of a service's start, each noted once."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from disagfusion.stage.startup import Startup, process_started


def test_steps_are_noted_once(tmp_path: Path) -> None:
    report = tmp_path / "weights.json"
    report.write_text('{"finished": 1700000000.5, "bytes": 7}')
    seen: list[tuple[str, float]] = []
    startup = Startup(lambda step, at: seen.append((step, at)), report)
    startup.reached("ready", 1700000009.0)
    startup.reached("ready", 1700000099.0)
    assert seen[1:] == [("fetched", 1700000000.5), ("ready", 1700000009.0)]
    assert seen[0][0] == "started"


def test_a_step_takes_place_now(tmp_path: Path) -> None:
    seen: dict[str, float] = {}
    before = time.time()
    Startup(seen.__setitem__, None).reached("listening")
    assert before <= seen["listening"] <= time.time()
    assert set(seen) == {"started", "listening"}


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"finished": null}'])
def test_a_report_that_says_nothing_is_left_out(tmp_path: Path, content: str | None) -> None:
    report = tmp_path / "weights.json"
    if content is not None:
        report.write_text(content)
    seen: dict[str, float] = {}
    Startup(seen.__setitem__, report)
    assert set(seen) == {"started"}


def test_the_process_knows_when_it_began() -> None:
    # psutil counts from the boot in whole seconds.
    assert process_started() == pytest.approx(psutil.Process().create_time(), abs=1.1)
