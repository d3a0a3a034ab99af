"""`disagfusion explain` beside a running system."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from disagfusion.cli import app
from disagfusion.cli.fleet import Fleet
from disagfusion.v1 import fleet_pb2, generation_pb2, stage_pb2

PROFILE = """
pools: {a10: {accelerators: 8}}
stages:
  encoder: {pools: {a10: {model: {constant: 1}}}}
  dit: {pools: {a10: {model: {per_step: 1}}}}
  decoder: {pools: {a10: {model: {constant: 2}}}}
"""
MESSAGE = "1 from decoder to dit on a10: outlook 9.0 % better"


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def running(jobs: int, budget: int = 0) -> Fleet:
    """Two DiTs and a decoder that are ready, an encoder that is lost."""
    response = fleet_pb2.GetFleetResponse(budget=budget)
    for stage in (generation_pb2.STAGE_DIT, generation_pb2.STAGE_DIT, generation_pb2.STAGE_DECODER):
        response.workers.add(
            name="w", stages=[stage], pool="a10", state=stage_pb2.WORKER_STATE_READY
        )
    response.lost.add(name="encoder-0", stages=[1], pool="a10", reason="no sign of life")
    shape = fleet_pb2.JobShape(height=64, width=64, num_inference_steps=4)
    for _ in range(jobs):
        response.jobs.add(stage=generation_pb2.STAGE_ENCODER, shape=shape)
    decisions = [
        fleet_pb2.FleetDecision(reason="WITHIN_TOLERANCE", message="1 new to dit"),
        fleet_pb2.FleetDecision(reason="REBALANCE", message=MESSAGE),
    ]
    for decision, seconds in zip(decisions, (20, 10), strict=True):
        decision.time.FromSeconds(seconds)
    decisions[1].moves.add(from_stage="decoder", to_stage="dit", count=1)
    return Fleet(response, decisions)


@pytest.fixture
def explain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Any:
    (tmp_path / "profile.yaml").write_text(PROFILE)

    def run(seen: Fleet, *arguments: str) -> str:
        monkeypatch.setattr("disagfusion.cli.fleet.ask", lambda address, asked: seen)
        profile = str(tmp_path / "profile.yaml")
        with pytest.raises(SystemExit) as left:
            app.main(["explain", "--profile", profile, "--fleet", "unix:/nowhere", *arguments])
        assert not left.value.code, capsys.readouterr().err
        return capsys.readouterr().out

    return run


def test_the_running_budget_counts_unless_another_is_given(explain: Any) -> None:
    def dits(*arguments: str, budget: int) -> int:
        found = json.loads(explain(running(1, budget), *arguments, "--json"))
        return int(found["plan"]["replicas"]["dit"]["a10"])

    assert dits(budget=4) == 2
    assert dits("--budget", "3", budget=4) == 1
    # A gateway that was not told: all that the profile has.
    assert dits(budget=0) == dits(budget=8) > 2


def test_why_what_runs_is_not_the_best(explain: Any) -> None:
    lines = explain(running(3, 4)).splitlines()
    assert lines[0] == "Running: encoder 0, dit 2 a10, decoder 1 a10"
    assert lines[1] == "Lost:    encoder-0 was lost 0 s ago: no sign of life"
    assert lines[2].startswith("Best:    encoder 1 a10, dit 2 a10, decoder 1 a10")
    assert lines[3] == (
        "Apart:   the best has 1 more encoder on a10; what runs was made by 00:00:10  REBALANCE"
        f"  {MESSAGE}; now it says 00:00:20  WITHIN_TOLERANCE  1 new to dit"
    )


def test_without_jobs_it_says_what_runs_and_what_was_decided(explain: Any) -> None:
    out = explain(running(0))
    assert out.splitlines()[0] == "Running: encoder 0, dit 2 a10, decoder 1 a10"
    assert "no job is unfinished" in out
    assert f"REBALANCE  {MESSAGE}" in out
    assert json.loads(explain(running(0), "--json"))["plan"] is None


def test_nothing_apart(explain: Any) -> None:
    seen = running(1, 4)
    seen.response.workers.add(
        name="e", stages=[1], pool="a10", state=stage_pb2.WORKER_STATE_LOADING
    )
    del seen.decisions[1:]
    said = "nothing: what runs is the best; no decision that is remembered changed what runs"
    assert f"Apart:   {said}" in explain(seen)
