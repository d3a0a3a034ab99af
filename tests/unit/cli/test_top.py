from __future__ import annotations

import io
import time
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from disagfusion.cli.fleet import Fleet
from disagfusion.cli.top import bottleneck, describe, render, summarize, top
from disagfusion.v1 import fleet_pb2, generation_pb2, stage_pb2

ENCODER, DIT, DECODER = (
    generation_pb2.STAGE_ENCODER,
    generation_pb2.STAGE_DIT,
    generation_pb2.STAGE_DECODER,
)


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def decision(seconds: int, reason: str, message: str = "", *moves: Any) -> Any:
    found = fleet_pb2.FleetDecision(reason=reason, message=message)
    found.time.FromSeconds(seconds)
    for source, target in moves:
        found.moves.add(from_stage=source, to_stage=target, count=1)
    return found


def fleet(jobs: dict[int, int], decisions: list[Any]) -> Fleet:
    response = fleet_pb2.GetFleetResponse()
    for number, stage in enumerate((ENCODER, DIT, DIT, DECODER)):
        state = stage_pb2.WORKER_STATE_DRAINING if number == 2 else stage_pb2.WORKER_STATE_READY
        response.workers.add(name=f"w{number}", stages=[stage], pool="a10", state=state)
    for stage, count in jobs.items():
        for index in range(count):
            response.jobs.add(stage=stage, worker="w1" if index == 0 else "")
    return Fleet(response, decisions)


def text(seen: Fleet) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(render(seen, 3))
    return console.export_text()


def test_stages_pools_queues_and_decisions() -> None:
    seen = fleet({DIT: 4, DECODER: 2}, [decision(5, "REBALANCE", "why", ("dit", "decoder"))])
    shown = text(seen)
    assert "ratio 1:1:1   unfinished 6   bottleneck dit" in shown
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if "a10" in line}
    assert rows["dit"] == ["a10", "1", "·", "1", "·", "·", "3", "1"]
    assert rows["decoder"] == ["a10", "1", "·", "·", "·", "·", "1", "1"]
    assert "00:00:05  REBALANCE  1 dit → decoder  why" in shown


def test_nothing_waits() -> None:
    assert bottleneck(fleet({}, [])) == ""
    shown = text(fleet({}, []))
    assert "nothing waits" in shown
    assert "no decision yet" in shown


def test_decisions_that_say_the_same_are_one_line() -> None:
    moved = decision(20, "REBALANCE", "", ("dit", "decoder"))
    listed = [
        decision(50, "BALANCED"),
        decision(40, "BALANCED"),
        decision(30, "CHANGE_UNDER_WAY", "1 from dit"),
        moved,
        decision(10, "REBALANCE", "", ("dit", "decoder")),
    ]
    assert summarize(listed) == [
        "00:00:50  BALANCED  (since 00:00:40, × 2)",
        "00:00:30  CHANGE_UNDER_WAY  1 from dit",
        "00:00:20  REBALANCE  1 dit → decoder",
        "00:00:10  REBALANCE  1 dit → decoder",
    ]


@pytest.mark.parametrize(
    ("source", "target", "expected"), [("", "dit", "1 new → dit"), ("dit", "", "1 dit → none")]
)
def test_starts_and_stops(source: str, target: str, expected: str) -> None:
    assert expected in describe(decision(0, "SCALE_UP", "", (source, target)))


def test_a_stage_that_nobody_serves_keeps_its_row() -> None:
    response = fleet_pb2.GetFleetResponse()
    response.workers.add(name="w", stages=[DIT], pool="a10", state=stage_pb2.WORKER_STATE_READY)
    response.lost.add(
        name="encoder-0", stages=[ENCODER], pool="a10", reason="no sign of life", seconds=8.4
    )
    response.jobs.add(stage=ENCODER)
    for _ in range(3):
        response.jobs.add(stage=DIT)
    shown = text(Fleet(response))
    assert "ratio 0:1:0   unfinished 4   bottleneck encoder" in shown
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.strip()}
    assert rows["stage"][-3:] == ["lost", "waiting", "running"]
    assert rows["encoder"] == ["a10", "·", "·", "·", "·", "1", "1", "0"]
    assert rows["decoder"] == ["-", "·", "·", "·", "·", "·", "0", "0"]
    assert "encoder-0 was lost 8 s ago: no sign of life" in shown


def test_a_decision_has_the_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    assert describe(decision(0, "BALANCED")) == "05:30:00  BALANCED"


def test_a_move_is_said_once() -> None:
    message = "1 from dit to decoder on a10: outlook 47.6 % better"
    moved = describe(decision(0, "REBALANCE", message, ("dit", "decoder")))
    assert moved == f"00:00:00  REBALANCE  {message}"
    several = decision(0, "REBALANCE", message, ("dit", "decoder"), ("dit", "encoder"))
    assert "1 dit → encoder  1 from dit to decoder" in describe(several)


def test_lines_are_whole_where_there_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    long = "a sentence " * 30
    seen = fleet({}, [decision(0, "WAIT", long.strip())])
    monkeypatch.setattr("disagfusion.cli.fleet.ask", lambda address, asked: seen)
    top("unix:/nowhere", once=True, decisions=1)
    assert f"WAIT  {long.strip()}\n" in capsys.readouterr().out


def test_what_was_found_out_on_the_way_stands_beside_the_decision() -> None:
    first, second = decision(10, "BALANCED"), decision(20, "BALANCED")
    second.notes.append("calibration: tolerance 0.02 → 0.04, 6 % better")
    assert summarize([second, first]) == [
        "00:00:20  BALANCED  calibration: tolerance 0.02 → 0.04, 6 % better",
        "00:00:10  BALANCED",
    ]
