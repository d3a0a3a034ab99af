"""The balancer's process, put together."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from disagfusion.balancing.assembly import Parts, assemble, first_ratio
from disagfusion.balancing.settings import BalancedWorker, BalancingSettings
from disagfusion.scheduling.decision import Place
from disagfusion.scheduling.profile import Profile

STAGES = ("encoder", "dit", "decoder")
PROFILE = Profile.model_validate(
    {
        "pools": {"a": {"accelerators": 4}, "b": {"accelerators": 4}},
        "stages": {
            stage: {"pools": {"a": {"seconds": 1}, "b": {"seconds": 2}}} for stage in STAGES
        },
    }
)
WORKERS = {
    "encoder-0": "a", "dit-0": "a", "dit-1": "b", "dit-2": "b", "decoder-0": "b", "spare-0": "a",
}  # fmt: skip


def parts(directory: Path, stack: ExitStack, **given: Any) -> Parts:
    (directory / "profile.json").write_text(json.dumps(PROFILE.model_dump(exclude_none=True)))
    settings = BalancingSettings(
        fleet_address=f"unix:{directory}/nobody",
        control=f"{directory}/nobody",
        balanced_workers={n: BalancedWorker(address="", pool=p) for n, p in WORKERS.items()},
        balance_profile=directory / "profile.json",
        decision_log=directory / "decisions.jsonl",
        metrics_listen="",
        **given,
    )
    return assemble(settings, stack)


def test_what_is_fallen_back_to_is_the_ratio_at_the_start() -> None:
    workers = {name: BalancedWorker(address="", pool=pool) for name, pool in WORKERS.items()}
    assert first_ratio(workers, PROFILE) == {
        Place("encoder", "a"): 1,
        Place("dit", "a"): 1,
        Place("dit", "b"): 2,
        Place("decoder", "b"): 1,
    }


def test_calibration_can_be_switched_off_and_who_looks_on_needs_none(tmp_path: Path) -> None:
    with ExitStack() as stack:
        assert parts(tmp_path, stack).calibrator is not None
        assert parts(tmp_path, stack, balance_calibration=False).calibrator is None
        assert parts(tmp_path, stack, balance={"paused": True}).calibrator is None


def test_parameters_that_people_gave_are_fixed(tmp_path: Path) -> None:
    with ExitStack() as stack:
        calibrator = parts(tmp_path, stack, balance={"tolerance": 0.05}).calibrator
    assert calibrator is not None
    assert calibrator.settings.tolerance == 0.05
    assert calibrator.tuned == {}
