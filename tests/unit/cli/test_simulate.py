from __future__ import annotations

import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from disagfusion.cli.app import main
from disagfusion.cli.simulate import print_results

PROFILE = """\
pools: {a: {accelerators: 4, cost_per_hour: 2}}
stages:
  encoder: {pools: {a: {seconds: 1}}}
  dit: {pools: {a: {seconds: 4}}}
  decoder: {pools: {a: {seconds: 2}}}
monoliths:
  resident: {pool: a}
"""
WORKLOAD = """\
name: a few
shapes: {one: {num_inference_steps: 2}}
arrivals: [{shapes: {one: 1}, every: 1, count: 20}]
initial: {encoder: {a: 1}, dit: {a: 2}, decoder: {a: 1}}
budget: 4
rebind_seconds: 3
measure: {objective_seconds: 30}
"""


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    (tmp_path / "p.yaml").write_text(PROFILE)
    (tmp_path / "w.yaml").write_text(WORKLOAD)
    return ["--profile", str(tmp_path / "p.yaml"), "--workload", str(tmp_path / "w.yaml")]


def run(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_without_an_initial_ratio_it_is_the_exact_plan(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for initial in ("initial: {encoder: {a: 1}, dit: {a: 2}, decoder: {a: 1}}", ""):
        text = WORKLOAD.replace("initial: {encoder: {a: 1}, dit: {a: 2}, decoder: {a: 1}}", initial)
        (tmp_path / "w.yaml").write_text(text)
        assert run(["simulate", *files, "--policy", "static", "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))
    assert found[0] == found[1]


def test_one_policy_as_json(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["simulate", *files, "--policy", "static:1:2:1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["policy"], found["completed"], found["lost"]) == ("static:1:2:1", 20, 0)
    assert found["budget_exceeded"] == found["moves"] == 0
    assert {"p50", "p95", "p99"} <= set(found["latency_seconds"])
    assert 0.0 < found["attainment"] <= 1.0
    assert found["replica_seconds"]["dit"] == pytest.approx(2 * found["last_finish_seconds"])
    # Four accelerators at two an hour.
    assert found["cost"] == pytest.approx(found["last_finish_seconds"] / 3600 * 8)


def test_several_policies_as_a_table(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    policies = ["hybrid", "static", "monolith:resident"]
    arguments = [part for policy in policies for part in ("--policy", policy)]
    assert run(["simulate", *files, *arguments]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("a few")
    assert all(policy in shown for policy in policies)


def shown(width: int, policies: int = 1, windows: int = 0) -> list[str]:
    """What is printed on a terminal of some width."""
    ends = [(100.0 * i, 100.0 * (i + 1)) for i in range(windows)]
    workload: Any = SimpleNamespace(name="w", measure=SimpleNamespace(windows=ends))
    results: Any = [
        SimpleNamespace(
            policy=f"static:{i}:66:11", completed=189, lost=2, last_finish_seconds=1399.0,
            latency_seconds={"p50": 391.0, "p95": 465.0, "p99": 467.0}, moves=2, cost=12.5,
            accelerator_seconds=9000.0, attainment=0.75, budget_exceeded=0,
            finished_in_windows=list(range(windows)),
        )
        for i in range(policies)
    ]  # fmt: skip
    console = Console(width=width, file=io.StringIO(), record=True)
    print_results(console, workload, SimpleNamespace(name="p"), results)  # type: ignore[arg-type]
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_phases_are_a_table_of_their_own() -> None:
    lines = [line.split() for line in shown(100, windows=3)]
    head = "policy jobs lost last s P50 s P95 s P99 s moves acc·h cost attained".split()
    assert lines[1] == head
    assert lines[2][:2] == ["static:0:66:11", "189"]
    assert lines[4:6] == [
        "jobs that finished between".split(), "policy 0–100 s 100–200 s 200–300 s".split(),
    ]  # fmt: skip
    assert lines[6] == ["static:0:66:11", "0", "1", "2"]


@pytest.mark.parametrize("width", [46, 60, 80, 100])
def test_nothing_is_cut_where_it_is_narrow(width: int) -> None:
    lines = shown(width, policies=2, windows=12)
    assert not any("…" in line for line in lines)
    assert all(len(line) <= width for line in lines)
    assert any(line.split()[:2] == ["static:1:66:11", "189"] for line in lines)
    assert ["1100–1200", "s", "11", "11"] in [line.split() for line in lines]
    assert ("no room for" in "".join(lines)) is (width < 100)


def test_log_and_picture(files: list[str], tmp_path: Path) -> None:
    log, plot = tmp_path / "log.jsonl", tmp_path / "plot.png"
    assert run(["simulate", *files, "--log", str(log), "--plot", str(plot)]) == 0
    decisions = [json.loads(line) for line in log.read_text().splitlines()]
    assert decisions
    assert all(one["reason"] and one["at"] > 0 for one in decisions)
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_twice_the_load(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    latencies = []
    for load in ("0.25", "4"):
        assert run(["simulate", *files, "--policy", "static", "--load", load, "--json"]) == 0
        latencies.append(json.loads(capsys.readouterr().out)["latency_seconds"]["p95"])
    assert latencies[0] == pytest.approx(7.0)
    assert latencies[1] > 2 * latencies[0]


def test_what_has_its_own_times_keeps_them_under_another_load(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = "measure: {windows: [[0, 8], [8, 1000]]}\nfailures: [{at: 2, pool: a, replicas: 4}]"
    (tmp_path / "w.yaml").write_text(WORKLOAD.replace("measure: {objective_seconds: 30}", at))
    assert run(["simulate", *files, "--policy", "static", "--load", "0.01"]) == 4
    # Nobody has done one by then: had the failure been put off too, some would be done.
    assert "20 jobs never end" in capsys.readouterr().err
    text = WORKLOAD.replace("measure: {objective_seconds: 30}", at.partition("\n")[0])
    (tmp_path / "w.yaml").write_text(text)
    assert run(["simulate", *files, "--policy", "static", "--load", "0.125", "--json"]) == 0
    # 7 s each, one every 8 s.
    assert json.loads(capsys.readouterr().out)["finished_in_windows"] == [1, 19]
    assert run(["simulate", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "failures, throttles and windows keep their times" in shown


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--workload", "none.yaml"], 4, "none.yaml: no such file"),
        (["--budget", "3"], 2, "initial: takes 4 accelerators"),
        (["--load", "0"], 2, "--load"),
        (["--load", "inf"], 2, "--load: inf (expected a finite number above 0)"),
        (["--load", "nan"], 2, "--load: nan (expected a finite number above 0)"),
        (["--log", "/nonexistent/x"], 2, "--log: /nonexistent/x: there is no folder /nonexistent"),
        (["--plot", "/nonexistent/x"], 2, "--plot: /nonexistent/x: there is no folder"),
        (["--log", "/"], 2, "--log: /: is a folder"),
        (["--log", "/dev/full"], 4, "--log: /dev/full: No space left"),
        (["--policy", "static:1:9:1"], 2, "--policy: takes 11 accelerators of a (expected at"),
        (["--policy", "best"], 2, "--policy: 'best'"),
        (["--policy", "static", "--policy", "hybrid", "--plot", "x.png"], 2, "--plot"),
        (["--policy", "monolith:offloading"], 2, "no monolith 'offloading'"),
    ],
)
def test_what_is_wrong_is_said(
    files: list[str],
    arguments: list[str],
    status: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(["simulate", *files, *arguments]) == status
    assert message in capsys.readouterr().err


def test_a_broken_file_names_the_field(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "w.yaml").write_text(WORKLOAD.replace("every: 1", "every: -1"))
    assert run(["simulate", *files]) == 2
    assert "w.yaml: arrivals.0.every" in capsys.readouterr().err
