"""The command as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Command:
    """`python -m disagfusion.weights fetch`, with a cache of its own."""

    cache: Path
    log: Path
    environment: dict[str, str] = field(default_factory=dict)

    def start(self, source: str, *arguments: str, **popen: Any) -> subprocess.Popen[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
        environment |= {"DISAGFUSION_TERMINATION_LOG": str(self.log), **self.environment}
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "disagfusion.weights", "fetch", source,
             "--cache", str(self.cache), "--retry-seconds", "0.01", *arguments],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **popen,
        )  # fmt: skip

    def __call__(self, source: str, *arguments: str, **popen: Any) -> Outcome:
        with self.start(source, *arguments, **popen) as process:
            return ended(process)


@dataclass
class Outcome:
    status: int
    phases: list[dict[str, Any]]
    error: str

    def phase(self, name: str) -> dict[str, Any]:
        return next(phase for phase in self.phases if phase["phase"] == name)

    @property
    def path(self) -> Path:
        assert self.status == 0, self.error
        return Path(self.phase("ready")["path"])


def ended(process: subprocess.Popen[str]) -> Outcome:
    output, error = process.communicate(timeout=60)
    return Outcome(process.returncode, [json.loads(line) for line in output.splitlines()], error)
