from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import yaml

TOOLS = Path(__file__).parents[3] / ".tools" / "bin"
DASHBOARD = Path(__file__).parents[3] / "charts" / "disagfusion" / "dashboards" / "disagfusion.json"
PATIENCE = 60.0

# What only a balancer tells; the last one after a fit.
BALANCER_PANELS = {
    "Decisions", "Accelerators", "Model correction", "Model samples and version", "Model error",
    "Calibration",
}  # fmt: skip
# What only an operator tells.
OPERATOR_PANELS = {"API server", "Operators", "Reconciling"}


def tool(name: str) -> Path:
    """One of the Go programs."""
    path = TOOLS / name
    assert path.exists(), f"run the tests with `make test`, which builds {name}"
    return path


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def until(holds: Callable[[], bool], what: Callable[[], object]) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, what()
        time.sleep(0.1)


Targets = Sequence[str] | Path


class Prometheus:
    """A Prometheus that can be stopped and started again, with what it has stored.

    Its targets are addresses, or the file that has them.
    """

    def __init__(self, directory: Path, targets: Targets) -> None:
        self._directory = directory
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._port}"
        self.port = self._port
        found = (
            {"file_sd_configs": [{"files": [str(targets)]}]}
            if isinstance(targets, Path)
            else {"static_configs": [{"targets": list(targets)}]}
        )
        scrape = {"job_name": "disagfusion", **found}
        config = {
            "global": {"scrape_interval": "250ms", "scrape_timeout": "250ms"},
            "scrape_configs": [scrape],
        }
        (directory / "prometheus.yml").write_text(yaml.safe_dump(config))

    def start(self) -> None:
        with (self._directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    tool("prometheus"),
                    f"--config.file={self._directory / 'prometheus.yml'}",
                    f"--storage.tsdb.path={self._directory / 'data'}",
                    f"--web.listen-address=127.0.0.1:{self._port}",
                    "--scrape.discovery-reload-interval=100ms",
                ],
                stdout=log,
                stderr=log,
                cwd=self._directory,
            )
        until(self._ready, lambda: (self._directory / "log").read_text())

    def _ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._directory / "log").read_text()
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(PATIENCE)
            finally:
                self._process.kill()
                self._process.wait()
            self._process = None


@pytest.fixture
def prometheus_of(tmp_path: Path) -> Iterator[Callable[[Targets], Prometheus]]:
    """Makes one that scrapes targets; it ends with the test."""
    made: list[Prometheus] = []

    def make(targets: Targets) -> Prometheus:
        made.append(Prometheus(tmp_path, targets))
        return made[-1]

    yield make
    for one in made:
        one.stop()


def without_data(url: str, pipeline: str) -> set[str]:
    """Ask a Prometheus what the dashboard asks; return the panels that stay empty."""
    empty = set()
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        found = 0
        for target in panel.get("targets", ()):
            text = target["expr"].replace("$pipeline", pipeline)
            text = text.replace("$__rate_interval", "30s")
            query = urllib.parse.urlencode({"query": text})
            with urllib.request.urlopen(f"{url}/api/v1/query?{query}", timeout=10) as answer:
                told = json.load(answer)
            assert told["status"] == "success", (panel["title"], told)
            assert not told.get("warnings"), (panel["title"], told)
            found += len(told["data"]["result"])
        if panel["type"] != "row" and not found:
            empty.add(panel["title"])
    return empty
