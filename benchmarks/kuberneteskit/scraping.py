"""A real Prometheus that scrapes pods, and a proxy that fails some of its scrapes."""

from __future__ import annotations

import http.server
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from tools.cluster.programs import need

BRIDGE = "10.89.0.1"
"""Where pods of the development cluster reach the machine."""
_START = 30.0


class FlakyProxy(http.server.ThreadingHTTPServer):
    """A proxy for scrapes that fails every tenth.

    Attributes:
        count: Scrapes so far.
        failed: Of them, on purpose.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.count = self.failed = 0
        self._lock = threading.Lock()

    def fails(self) -> bool:
        """Whether this scrape is to fail."""
        with self._lock:
            self.count += 1
            self.failed += self.count % 10 == 0
            return self.count % 10 == 0


class _Forward(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, FlakyProxy)
        if server.fails():
            self.send_error(503, "this scrape fails on purpose")
            return
        try:
            with urllib.request.urlopen(self.path, timeout=1) as answer:
                body, kind = answer.read(), answer.headers["Content-Type"]
        except OSError as error:
            # Prometheus may have given up waiting.
            with suppress(OSError):
                self.send_error(502, str(error))
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def flaky_proxy() -> Iterator[FlakyProxy]:
    """Run a proxy."""
    proxy = FlakyProxy()
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.shutdown()
        proxy.server_close()


@contextmanager
def prometheus(
    directory: Path,
    targets: Path,
    proxy: FlakyProxy | None = None,
    *,
    seconds: int = 1,
    honor_labels: bool = False,
) -> Iterator[str]:
    """Run Prometheus; return its URL for the machine and for pods.

    Args:
        directory: For its files.
        targets: What it scrapes, as `file_sd_configs` have it.
        proxy: Through which it scrapes.
        seconds: Between two scrapes.
        honor_labels: Targets say themselves whose series they have.
    """
    scrapes: dict[str, Any] = {
        "job_name": "pods",
        "honor_labels": honor_labels,
        "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "1s"}],
    }
    if proxy is not None:
        scrapes["proxy_url"] = f"http://127.0.0.1:{proxy.server_port}"
    config = {
        "global": {"scrape_interval": f"{seconds}s", "scrape_timeout": f"{seconds}s"},
        "scrape_configs": [scrapes],
    }
    targets.write_text("[]")
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind((BRIDGE, 0))
        address = f"{BRIDGE}:{free.getsockname()[1]}"
    process = subprocess.Popen(
        [
            str(need("prometheus")),
            f"--config.file={directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address={address}",
        ],
        stderr=(directory / "prometheus.log").open("w"),
    )
    try:
        _wait_listening(process, address)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait()


def _wait_listening(process: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + _START
    while True:
        try:
            urllib.request.urlopen(f"http://{address}/-/ready", timeout=1).close()
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"Prometheus does not answer on {address}: {error}")
            time.sleep(0.2)
        else:
            return
