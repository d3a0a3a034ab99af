"""A real Prometheus on this machine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from tools.cluster.programs import need

_BRIDGE = "10.89.0.1"
"""Where pods reach this machine."""
_PORT = 9091


class Prometheus:
    """A real one on this machine, that scrapes the pods of a pipeline.

    Args:
        directory: For its files.
    """

    url = f"http://{_BRIDGE}:{_PORT}"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, addresses: list[str]) -> None:
        """Scrape these once a second."""
        scrapes = [{"job_name": "pods", "static_configs": [{"targets": addresses}]}]
        settings = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": scrapes,
        }
        config = self._directory / "prometheus.yml"
        config.write_text(yaml.safe_dump(settings))
        self._process = subprocess.Popen(
            [
                str(need("prometheus")),
                f"--config.file={config}",
                f"--storage.tsdb.path={self._directory / 'data'}",
                f"--web.listen-address={_BRIDGE}:{_PORT}",
            ],
            stderr=subprocess.DEVNULL,
        )

    def stop(self) -> None:
        """Kill it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
