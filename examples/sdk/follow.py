"""Follow a job step by step, on a system that lives as long as this program.

python examples/sdk/follow.py "a handwritten seven in red" seven.png
"""

from __future__ import annotations

import sys

from disagfusion.client import Client
from disagfusion.local import LocalRuntime


def main(prompt: str, file: str) -> None:
    with LocalRuntime() as runtime, Client(runtime.address) as client:
        job = client.submit(prompt, seed=7)
        for event in job.events():
            step = event.progress
            done = f"step {step.step} of {step.num_inference_steps}" if step else ""
            print(event.state, event.stage_status or "", done)
        (path,) = job.result().save(file)
        print(path)


if __name__ == "__main__":
    main(*sys.argv[1:])
