"""The clock by which jobs are timed."""

from __future__ import annotations

import time

import pytest
from disagfusion_gateway import clock
from disagfusion_gateway.clock import SteadyClock


def test_it_goes_on_from_where_it_was_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "_elapsed", iter((50.0, 50.5, 60.0)).__next__)
    steady = SteadyClock(1000.0)
    assert (steady(), steady()) == (1000.5, 1010.0)


def test_setting_the_machines_clock_does_not_change_it(monkeypatch: pytest.MonkeyPatch) -> None:
    steady = SteadyClock(1000.0)
    before = steady()
    for moved in (-3600.0, 3600.0):
        monkeypatch.setattr(time, "time", lambda moved=moved: moved)
        assert before <= steady() < before + 600
