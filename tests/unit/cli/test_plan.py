"""`disagfusion plan`: what it prints, and what it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from disagfusion.cli import app

EXAMPLES = Path(__file__).parents[3] / "examples" / "profiles"
ONE_STEP = str(EXAMPLES / "w1-one-step.yaml")
PROFILE = """
pools:
  a10: {accelerators: 6, memory_gib: 24, cost_per_hour: 1.2}
  l4: {accelerators: 4, memory_gib: 24, cost_per_hour: 0.7}
stages:
  encoder:
    pools: {l4: {model: {constant: 0.4, per_megapixel: 1}}}
  dit:
    pools:
      a10: {model: {per_step_megapixel: 10}, memory_gib: {per_megapixel: 20}}
      l4: {model: {per_step_megapixel: 25}}
"""


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        app.main(["plan", *arguments])
    out, err = capsys.readouterr()
    status = left.value.code
    assert status is None or isinstance(status, int)
    return status or 0, out, err


def test_a_table_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "--profile", ONE_STEP)
    assert (status, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    assert lines[:4] == [
        ["stage", "a10", "jobs/s", "busy"],
        ["encoder", "2", "0.396", "54%"],
        ["dit", "4", "0.2151", "100%"],
        ["decoder", "2", "0.2222", "97%"],
    ]
    assert ["throughput", "0.2151", "jobs/s"] in lines
    assert ["bottleneck", "dit"] in lines
    assert "runner-up    1:5:2: 0.198 jobs/s, 8 % less" in out
    assert "cost" not in out


def test_one_object_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "--profile", ONE_STEP, "--json")
    found = json.loads(out)
    assert status == 0
    assert found["replicas"] == {"encoder": {"a10": 2}, "dit": {"a10": 4}, "decoder": {"a10": 2}}
    assert found["groups"][1] == {
        "stages": ["dit"], "pool": "a10", "parallel_degree": 1, "replicas": 4,
    }  # fmt: skip
    assert (found["bottleneck"], found["proven"]) == ("dit", True)
    assert found["throughput"] == pytest.approx(4 / 18.6)
    assert found["runner_up"]["replicas"]["dit"] == {"a10": 5}
    assert set(found["runner_up"]) == {"replicas", "throughput", "cost_per_hour", "reason"}


def test_demand_budget_and_what_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    profile, demand, current = (tmp_path / f"{name}.yaml" for name in ("p", "d", "c"))
    profile.write_text(PROFILE)
    demand.write_text("shapes: [{height: 1000, width: 1000, num_inference_steps: 2}]\nrate: 0.1\n")
    files = ("--profile", str(profile), "--demand", str(demand))
    _, out, _ = run(capsys, *files, "--json")
    found = json.loads(out)
    assert found["meets_demand"]
    # The plan itself says what runs; then nothing has to change.
    current.write_text(out)
    status, out, _ = run(capsys, *files, "--current", str(current))
    assert status == 0
    assert ["moves", "0"] in [line.split() for line in out.splitlines()]
    assert "cost         " in out
    assert run(capsys, *files, "--budget", "2", "--json")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "status", "text"),
    [
        ((), 2, "--profile"),
        (("--profile", "/nonexistent.yaml"), 4, "/nonexistent.yaml: no such file"),
        (("--profile", ONE_STEP, "--budget", "2"), 4, "minima take 3 accelerators, the budget is"),
        (("--profile", ONE_STEP, "--budget", "-1"), 2, "--budget"),
        (
            ("--profile", str(EXAMPLES / "wan2.2-i2v-480p.yaml")),
            2,
            "--demand: what dit costs depends on the jobs",
        ),
    ],
)
def test_a_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], status: int, text: str
) -> None:
    found, out, err = run(capsys, *arguments)
    assert (found, out) == (status, "")
    assert err.startswith("error: ")
    assert text in err
    assert len(err.splitlines()) == 1


MEASURED = """
pools: {local: {accelerators: 4}}
stages:
  encoder: {pools: {local: {model: {constant: 0.4}, memory_gib: {constant: 1}}}}
  dit: {pools: {local: {model: {constant: 0.1, per_step: 1}}}}
"""


def test_the_stage_that_needs_a_demand_is_named_and_what_a_demand_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    profile = tmp_path / "profile.yaml"
    profile.write_text(MEASURED)
    status, _, err = run(capsys, "--profile", str(profile))
    assert status == 2
    assert "--demand: what dit costs depends on the jobs" in err
    assert "disagfusion schema demand" in err
    # What the message shows is one.
    demand = tmp_path / "demand.yaml"
    demand.write_text(err.split("`")[1])
    assert run(capsys, "--profile", str(profile), "--demand", str(demand))[0] == 0


def test_costs_that_are_the_same_for_every_job_need_no_demand(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    profile = tmp_path / "profile.yaml"
    profile.write_text(MEASURED.replace("per_step: 1", "per_step: 0"))
    assert run(capsys, "--profile", str(profile))[0] == 0


@pytest.mark.parametrize("command", ["plan", "explain"])
def test_no_accelerators_are_a_budget_for_both(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        app.main([command, "--profile", ONE_STEP, "--budget", "0"])
    assert left.value.code == 4
    assert "the budget is 0" in capsys.readouterr().err


def test_a_wrong_field_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "p.yaml"
    file.write_text("pools: {a: {accelerators: 1}}\nstages: {dit: {pools: {a: {secs: 3}}}}\n")
    status, _, err = run(capsys, "--profile", str(file))
    assert status == 2
    assert f"{file}: stages.dit.pools.a.secs" in err
    current = tmp_path / "c.yaml"
    current.write_text("replicas: {vae: {a10: 1}}\n")
    status, _, err = run(capsys, "--profile", ONE_STEP, "--current", str(current))
    assert (status, "no such stage: vae" in err) == (2, True)


def test_without_the_planners_packages_it_says_what_to_install() -> None:
    code = (
        "import sys\nsys.modules['highspy'] = None\n"
        "from importlib import util\nfind = util.find_spec\n"
        "util.find_spec = lambda name: None if name == 'highspy' else find(name)\n"
        "from disagfusion.cli.app import main\n"
        f"main(['plan', '--profile', {ONE_STEP!r}])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], timeout=60, capture_output=True, text=True, check=False
    )
    assert done.returncode == 4
    assert "highspy not installed: pip install 'disagfusion[planner]'" in done.stderr


def test_one_pool_is_planned_without_highs() -> None:
    code = (
        "import sys\nfrom disagfusion.cli.app import main\n"
        f"try:\n    main(['plan', '--profile', {ONE_STEP!r}, '--json'])\nexcept SystemExit:\n"
        "    pass\nprint('highspy' in sys.modules, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], timeout=60, capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "False"
