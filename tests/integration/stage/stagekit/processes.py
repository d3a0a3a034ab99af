"""Fronts and the fork server as processes that end with the test."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import disagfusion

ROOT = Path(disagfusion.__file__).resolve().parents[1]
DIGITS = ROOT / "disagfusion" / "local" / "digits"
PATIENCE = 240.0


class Process:
    """A process of ours; its log is a file."""

    def __init__(self, module: str, directory: Path, label: str, /, **settings: object) -> None:
        self.name = label
        self.log = directory / f"{label}.log"
        self._ready = directory / f"{label}.ready"
        self._ready.unlink(missing_ok=True)
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "DISAGFUSION_READY_FILE": str(self._ready),
            **{f"DISAGFUSION_{key.upper()}": str(value) for key, value in settings.items()},
        }
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                [sys.executable, "-P", "-m", module], env=environment, stderr=log, stdout=log
            )
        self.address = ""
        self.metrics_address = ""

    def wait_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while not self._ready.exists():
            assert self.popen.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.01)
        ready = json.loads(self._ready.read_text())
        assert ready["pid"] == self.popen.pid
        self.address, self.metrics_address = ready["address"], ready["metrics_address"]

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples that have these labels."""
        url = f"http://{self.metrics_address}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        wanted = [f'{key}="{value}"' for key, value in labels.items()]
        return sum(
            float(line.rpartition(" ")[2])
            for line in lines
            if line.startswith((f"{name}{{", f"{name} ")) and all(w in line for w in wanted)
        )

    def stop(self, number: int = signal.SIGTERM, timeout: float = 30) -> int:
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        try:
            return self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise


class Cluster:
    """Any number of fronts."""

    def __init__(self, directory: Path, fork_server: str) -> None:
        self.directory = directory
        self.processes: list[Process] = []
        self.fork_server = fork_server

    def fronts(self, *stages: str, **settings: object) -> list[Process]:
        """Start fronts side by side."""
        started = [self.front(stage, wait=False, **settings) for stage in stages]
        for process in started:
            process.wait_ready()
        return started

    def front(
        self, stage: str, name: str = "", *, wait: bool = True, **settings: object
    ) -> Process:
        name = name or f"{stage}-{len(self.processes)}"
        defaults = {
            "listen": f"unix:{self.directory / name}.sock",
            "name": name,
            "model": DIGITS,
            "transport": "tcp",
            "fork_server": self.fork_server,
            "arena_bytes": 16 << 20,
        }
        process = self._start(f"disagfusion_{stage}", name, **{**defaults, **settings})
        if wait:
            process.wait_ready()
        return process

    def close(self) -> None:
        for process in reversed(self.processes):
            if process.popen.poll() is None:
                process.popen.kill()
                process.popen.wait()

    def _start(self, module: str, label: str, /, **settings: object) -> Process:
        process = Process(module, self.directory, label, **settings)
        self.processes.append(process)
        return process


async def killed_with_its_engine(front: Process, engine: int) -> None:
    """Kill a front; return when the kernel has ended its engine as well."""
    descriptor = os.pidfd_open(engine)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(descriptor, ended.set)
    front.stop(signal.SIGKILL)
    async with asyncio.timeout(10):
        await ended.wait()
    asyncio.get_running_loop().remove_reader(descriptor)
    os.close(descriptor)
