"""`disagfusion serve --balance` as a user types it, while the mix of the jobs shifts."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from disagfusion.cli import fleet
from disagfusion.client import Client, JobHandle, JobState

ROOT = Path(__file__).parents[3]
COMMAND = (sys.executable, "-c", "from disagfusion.cli.app import main; main()")
PROFILE = "examples/profiles/wan2.2-i2v-480p.yaml"
BUDGET = 6
SERVE = (
    "serve", "--profile", PROFILE, "--device", "emulated:a10", "--dits", "3",
    "--balance", "--balance-profile", PROFILE, "--balance-period", "20", "--budget", str(BUDGET),
    "--time-scale", "0.02", "--transport", "tcp", "--listen", "127.0.0.1:0",
)  # fmt: skip


class Served:
    """A running system, and what it says of itself."""

    def __init__(self, address: str, directory: Path) -> None:
        self.address, self.data = address, directory / "data"
        self._err = directory / "err"

    @property
    def fleet(self) -> str:
        """The address that the command told to watch."""
        (found,) = re.findall(r"disagfusion top --fleet (\S+)", self._err.read_text())
        return str(found)

    def moves(self) -> list[dict[str, Any]]:
        lines = (self.data / "decisions.jsonl").read_text().split("\n")[:-1]
        return [move for line in lines for move in json.loads(line)["moves"]]

    def gauge(self, name: str, **labels: str) -> float:
        """A metric of the balancer; its log says where they are."""
        log = (self.data / "logs" / "balancer.log").read_text().splitlines()
        (where,) = [entry["metrics"] for entry in map(json.loads, log) if "metrics" in entry]
        with urllib.request.urlopen(f"http://{where}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in text.splitlines()
            if line.startswith(f"{name}{{") and all(one in line for one in wanted)
        )

    def check_budget(self) -> None:
        """The gateway's account and the balancer's: neither has ever more than is allowed."""
        assert len(fleet.ask(self.fleet, 1).response.workers) <= BUDGET
        assert self.gauge("disagfusion_pool_accelerators", state="held") <= BUDGET


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("served")
    with (
        (directory / "err").open("w") as err,
        subprocess.Popen(
            [*COMMAND, *SERVE, "--data-dir", str(directory / "data")],
            stdout=subprocess.PIPE, stderr=err, text=True, cwd=ROOT,
        ) as process,
    ):  # fmt: skip
        try:
            assert process.stdout is not None
            address = process.stdout.readline().strip()
            assert address, (directory / "err").read_text()
            yield Served(address, directory)
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0, (directory / "err").read_text()
        finally:
            process.kill()


def run(*arguments: str, status: int = 0) -> tuple[str, str]:
    done = subprocess.run(
        [*COMMAND, *arguments],
        capture_output=True, text=True, timeout=60, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    return done.stdout, done.stderr


def finish(served: Served, handles: list[JobHandle]) -> None:
    for number, handle in enumerate(handles):
        assert handle.result().job.state is JobState.SUCCEEDED
        if number % 10 == 0:
            served.check_budget()


def test_replicas_follow_the_mix_within_the_budget(served: Served) -> None:
    with Client(served.address, timeout=60.0) as client:

        def submit(count: int, steps: int) -> list[JobHandle]:
            return [
                client.submit("p", num_inference_steps=steps, height=480, width=832, seed=seed)
                for seed in range(count)
            ]

        # One step: the only decoder has the most to do, and there is room for one more.
        short = submit(50, 1)
        finish(served, short)
        assert served.moves()[0] == {"from": None, "to": ["decoder", "a10"], "count": 1}
        # Four steps: now it is the DiTs.
        long = submit(14, 4)
        finish(served, long)
        assert {"from": ["decoder", "a10"], "to": ["dit", "a10"], "count": 1} in served.moves()
        assert len({job.id for job in client.jobs()}) == 64
    assert served.gauge("disagfusion_balancer_decisions_total", reason="rebalance") >= 1
    assert served.gauge("disagfusion_balancer_decisions_total", reason="scale_up") >= 1
    assert served.gauge("disagfusion_pool_accelerators", state="usable") == BUDGET
    assert served.gauge("disagfusion_desired_replicas") == BUDGET
    assert served.gauge("disagfusion_model_samples") > 0
    served.check_budget()
    out, _ = run("top", "--once", "--decisions", "50", "--fleet", served.fleet)
    assert "SCALE_UP  1 new to decoder on a10" in out
    assert "REBALANCE  1 from decoder to dit on a10" in out
    (ratio,) = re.findall(r"^ratio (\d+):(\d+):(\d+) ", out, re.MULTILINE)
    assert sum(map(int, ratio)) == BUDGET


def test_a_wrong_option_is_named(tmp_path: Path) -> None:
    out, err = run(*SERVE, "--budget", "3", "--data-dir", str(tmp_path / "data"), status=2)
    assert (out, len(err.splitlines())) == ("", 1)
    assert err == "error: budget: 3 (expected at least the 5 that the first workers take)\n"
    assert not (tmp_path / "data").exists()
