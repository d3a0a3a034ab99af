"""How long the first picture takes from nothing: `disagfusion generate` against plain diffusers.

    python benchmarks/cold_start.py [--rounds 3] [--steps 8] [--json]

Both are fresh processes that import everything, load the digits model and write one PNG; they take
turns, so that a noisy machine is noisy for both. A round counts the seconds from the start of the
process to the picture's file, and the CPU seconds of the process and all that it started. Exits
with 1 if the medians' ratio is more than 1.3.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from disagfusion.local.deployment import DIGITS

LIMIT = 1.3
PROMPT = "a handwritten seven in red"
UNSPLIT = """
import sys
import torch
from diffusers import FluxPipeline

model, prompt, steps, file = sys.argv[1:]
pipeline = FluxPipeline.from_pretrained(model)
pipeline.set_progress_bar_config(disable=True)
result = pipeline(
    prompt, height=64, width=64, num_inference_steps=int(steps), max_sequence_length=32,
    generator=torch.Generator().manual_seed(7),
)
result.images[0].save(file)
"""


@dataclass(frozen=True)
class Start:
    """One cold start.

    Attributes:
        picture_seconds: Until the picture's file was written.
        end_seconds: Until the process had ended, and all that it had started.
        cpu_seconds: User and system time of the process and its descendants.
    """

    picture_seconds: float
    end_seconds: float
    cpu_seconds: float


def measure(command: list[str], file: Path) -> Start:
    """Run a command that writes a file."""
    file.unlink(missing_ok=True)
    began = time.time()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"exit status {process.returncode}: {' '.join(command[:4])} …")
    return Start(
        picture_seconds=file.stat().st_mtime - began,
        end_seconds=time.time() - began,
        cpu_seconds=usage.ru_utime + usage.ru_stime,
    )


def split_command(steps: int, file: Path) -> list[str]:
    code = "from disagfusion.cli.app import main; main()"
    options = ["--seed", "7", "--height", "64", "--width", "64", "--steps", str(steps)]
    options += ["-p", "max_sequence_length=32"]
    return [sys.executable, "-c", code, "generate", PROMPT, "-o", str(file), *options]


def unsplit_command(steps: int, file: Path) -> list[str]:
    return [sys.executable, "-c", UNSPLIT, str(DIGITS), PROMPT, str(steps), str(file)]


def median(starts: list[Start]) -> Start:
    fields = zip(*(asdict(start).values() for start in starts), strict=True)
    return Start(*(statistics.median(values) for values in fields))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    split: list[Start] = []
    unsplit: list[Start] = []
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "seven.png"
        for _ in range(arguments.rounds):
            unsplit.append(measure(unsplit_command(arguments.steps, file), file))
            split.append(measure(split_command(arguments.steps, file), file))
    ours, theirs = median(split), median(unsplit)
    ratio = ours.picture_seconds / theirs.picture_seconds
    if arguments.json:
        report = {
            "cores": len(os.sched_getaffinity(0)),
            "load": os.getloadavg(),
            "ratio": ratio,
            "limit": LIMIT,
            "split": [asdict(start) for start in split],
            "unsplit": [asdict(start) for start in unsplit],
        }
        print(json.dumps(report))
    else:
        print(f"medians of {arguments.rounds} rounds, load {os.getloadavg()[0]:.1f}, in seconds")
        for name, start in (("disagfusion generate", ours), ("plain diffusers", theirs)):
            print(
                f"{name:22} picture {start.picture_seconds:6.2f}   end {start.end_seconds:6.2f}   "
                f"CPU {start.cpu_seconds:6.2f}"
            )
        print(f"ratio {ratio:.2f}, at most {LIMIT}")
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
