"""UCX's own `ucx_perftest`, from the library that is installed."""

from __future__ import annotations

import importlib.util
import os
import re
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.transportkit.contender import MEBIBYTE

# A run should take about the time that was asked for at this speed.
_EXPECTED = 5e9
_OUTSTANDING = 4

_SEGMENTS = {"TCP_TX_SEG_SIZE": "256k", "TCP_RX_SEG_SIZE": "256k"}
_LARGE_SEGMENTS = {"TCP_TX_SEG_SIZE": "1m", "TCP_RX_SEG_SIZE": "1m"}


@dataclass(frozen=True)
class Perftest:
    """`ucx_perftest -t tag_bw` between two processes.

    Attributes:
        name: For tables.
        over: "shm" or "tcp".
        error_handling: Whether peers' errors are handled (`-e`).
        variants: UCX's options; each size counts with the best of them.
    """

    name: str
    over: str
    error_handling: bool
    variants: Sequence[Mapping[str, str]] = field(default=({},))

    def measure(self, sizes: Sequence[int], seconds: float) -> dict[int, float]:
        """See `Contender`."""
        return {
            size: max(self._run(size, seconds, options) for options in self.variants)
            for size in sizes
        }

    def _run(self, size: int, seconds: float, options: Mapping[str, str]) -> float:
        root = _library()
        environment = {name: value for name, value in os.environ.items() if "UCX_" not in name}
        environment |= {f"UCX_{name}": value for name, value in options.items()}
        environment["LD_LIBRARY_PATH"] = str(root / "lib")
        port = _free_port()
        count = max(8, int(seconds * _EXPECTED / size))
        command: list[str | Path] = [root / "bin" / "ucx_perftest"]
        settings = ["-t", "tag_bw", "-s", size, "-n", count, "-w", 4, "-p", port]
        settings += ["-O", _OUTSTANDING, "-f", "-v"] + ["-e"] * self.error_handling
        texts = [str(setting) for setting in settings]
        with subprocess.Popen(
            [*command, *texts],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as server:
            try:
                _until_listening(port, server)
                done = subprocess.run(
                    [*command, "127.0.0.1", *texts],
                    env=environment,
                    capture_output=True,
                    text=True,
                    timeout=120,
                    check=True,
                )
            finally:
                server.kill()
        return _bandwidth(done.stdout)


def contenders() -> tuple[Perftest, ...]:
    """Return the runs that ours is compared with, the same UCX transports in the same modes."""
    return (
        Perftest(
            "ucx_perftest -e",
            "shm",
            True,
            ({"TLS": "posix,self", "POSIX_ERROR_HANDLING": "y"},),
        ),
        Perftest(
            "ucx_perftest",
            "shm",
            False,
            ({"TLS": "posix,self"}, {"TLS": "posix,cma,self"}, {"TLS": "sysv,self"}),
        ),
        Perftest("ucx_perftest -e", "tcp", True, _tcp_variants()),
        Perftest("ucx_perftest", "tcp", False, _tcp_variants()),
    )


def _tcp_variants() -> tuple[dict[str, str], ...]:
    return tuple({"TLS": "tcp,self", **more} for more in ({}, _SEGMENTS, _LARGE_SEGMENTS))


def _library() -> Path:
    found = importlib.util.find_spec("libucx")
    if found is None or found.origin is None:
        raise SystemExit("libucx is not installed: make setup")
    return Path(found.origin).parent


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _until_listening(port: int, server: subprocess.Popen[bytes]) -> None:
    wanted = f":{port:04X} "
    while server.poll() is None:
        lines = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
        if any(wanted in line and " 0A " in line for line in lines.splitlines()):
            return
        time.sleep(0.01)
    raise SystemExit(f"ucx_perftest ended with {server.returncode}")


def _bandwidth(text: str) -> float:
    """Return bytes per second from the last line of `-f -v`: CSV, with MiB/s in it."""
    lines = [line for line in text.splitlines() if re.match(r"\s*\d+,", line)]
    if not lines:
        raise SystemExit(f"ucx_perftest printed no result:\n{text}")
    # iterations, typical, average and overall latency, average and overall MiB/s, rates
    return float(lines[-1].split(",")[5]) * MEBIBYTE
