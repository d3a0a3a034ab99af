"""A running balancer is held and let go, calibrates itself, and goes on with what it learned."""

from __future__ import annotations

import json
import os
import signal
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from disagfusion.cli import app
from disagfusion.client import Client, JobState
from disagfusion.local import Balance, LocalRuntime, ProcessStatus

pytestmark = pytest.mark.timeout(180)

PROFILE = Path(__file__).with_name("profile.yaml")
SCALE = 0.02
# A decoder takes 10 s, a DiT 2 s, of the profile's.
HEAVY = {"height": 500, "width": 500}
JOBS = 40


def eventually(condition: Callable[[], Any], what: str, seconds: float = 90.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)
    return found


class System:
    def __init__(self, runtime: LocalRuntime, client: Client) -> None:
        self.runtime, self.client = runtime, client
        self.data = runtime.data_directory

    @property
    def balancer(self) -> ProcessStatus:
        return next(entry for entry in self.runtime.status() if entry.name == "balancer")

    def decisions(self) -> list[dict[str, Any]]:
        log = self.data / "decisions.jsonl"
        if not log.exists():
            return []
        return [json.loads(line) for line in log.read_text().split("\n")[:-1]]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the balancer's series of a name, and with some labels."""
        with urllib.request.urlopen(f"http://{self.balancer.metrics_address}/metrics") as answer:
            families = text_string_to_metric_families(answer.read().decode())
        return sum(
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    def work(self) -> None:
        """Do a burst of jobs for the decoder."""
        handles = [self.client.submit("p", seed=seed, **HEAVY) for seed in range(JOBS)]
        for handle in handles:
            assert handle.result().job.state is JobState.SUCCEEDED

    def run(self, *arguments: str) -> None:
        with pytest.raises(SystemExit) as ended:
            app.main(["balance", *arguments, "--data-dir", str(self.data)])
        assert not ended.value.code


def start(data: Path) -> LocalRuntime:
    return LocalRuntime(
        profile=PROFILE,
        device="emulated:quick",
        dits=2,
        time_scale=SCALE,
        transport="tcp",
        data_dir=data,
        balance=Balance(settings={"forecast_horizon": 0.0}),
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def system(data: Path) -> Iterator[System]:
    with start(data) as runtime, Client(runtime.address, timeout=60.0) as client:
        yield System(runtime, client)


def test_a_held_ratio_stays_whatever_comes(system: System) -> None:
    system.run("pause", "--why", "a demonstration")
    eventually(lambda: system.metric("disagfusion_balancer_held") == 1.0, "it is held")
    since = len(system.decisions())
    system.work()
    held = system.decisions()[since:]
    assert {(one["reason"], len(one["moves"])) for one in held} == {("PAUSED", 0)}
    assert held[0]["message"].endswith(": a demonstration")


def test_and_follows_the_work_once_it_is_let_go(system: System) -> None:
    since = len(system.decisions())
    system.run("resume")
    system.work()
    (move,) = [one for one in system.decisions()[since:] if one["moves"]]
    assert move["moves"][0]["to"] == ["decoder", "quick"]
    assert system.metric("disagfusion_balancer_held") == 0.0


def test_it_calibrates_itself_in_the_running_system(system: System) -> None:
    def notes() -> list[str]:
        return [note for one in system.decisions() for note in one.get("notes", ())]

    for _ in range(6):
        # There has to be enough of late that can be replayed.
        system.work()
        if notes():
            break
    found = eventually(notes, "a calibration")
    assert found[0].startswith("calibration: ")
    assert "jobs replayed" in found[0]
    name = "disagfusion_balancer_calibrations_total"
    assert system.metric(name, result="failed") == 0.0
    assert system.metric(name, result="kept") + system.metric(name, result="adopted") >= 1.0


def test_a_balancer_that_is_started_again_knows_each_sample_once(system: System) -> None:
    name = "disagfusion_model_samples"
    known = eventually(lambda: system.metric(name), "samples")
    before, since = system.balancer, len(system.decisions())
    os.kill(before.pid, signal.SIGTERM)
    eventually(
        lambda: system.balancer.pid != before.pid and system.balancer.state == "ready",
        "another balancer",
    )
    eventually(lambda: len(system.decisions()) > since + 1, "its decisions")
    assert system.metric(name) == known


def test_what_was_learned_outlives_the_system(system: System, data: Path) -> None:
    name = "disagfusion_model_samples"
    known, version = system.metric(name), system.metric("disagfusion_model_version")
    system.runtime.stop()
    with start(data) as runtime, Client(runtime.address, timeout=60.0) as client:
        after = System(runtime, client)
        since = len(after.decisions())
        eventually(lambda: len(after.decisions()) > since, "a decision")
        assert after.metric(name) == known > 0
        assert after.metric("disagfusion_model_version") == version


def test_a_file_that_is_damaged_is_set_aside_and_nothing_else_happens(data: Path) -> None:
    (data / "balancer.json").write_text('{"kind": "disagf')
    with start(data) as runtime, Client(runtime.address, timeout=60.0) as client:
        after = System(runtime, client)
        since = len(after.decisions())
        eventually(lambda: len(after.decisions()) > since, "a decision")
        assert after.metric("disagfusion_model_samples") == 0.0
        log = (data / "logs" / "balancer.log").read_text()
    assert "what was learned is not used" in log
    assert (data / "balancer.json.unusable").read_text() == '{"kind": "disagf'
