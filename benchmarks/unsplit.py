"""The unsplit diffusers pipeline in one process, for comparison. Imports nothing of DisagFusion.

    python benchmarks/unsplit.py MODEL THREADS < JOBS.json

JOBS.json is a list of the pipeline's arguments, with `seed` for the generator. Prints one JSON
object. The first tenth of the jobs is not counted.
"""

from __future__ import annotations

import io
import json
import sys
import time

import torch
from diffusers import FluxPipeline


def main() -> None:
    model, threads = sys.argv[1], int(sys.argv[2])
    jobs = json.load(sys.stdin)
    torch.set_num_threads(threads)
    pipeline = FluxPipeline.from_pretrained(model)  # type: ignore[no-untyped-call]
    pipeline.set_progress_bar_config(disable=True)
    warm_up = len(jobs) // 10
    begin = time.perf_counter()
    for number, job in enumerate(jobs):
        if number == warm_up:
            begin = time.perf_counter()
        generator = torch.Generator().manual_seed(job.pop("seed"))
        picture = pipeline(**job, generator=generator).images[0]
        picture.save(io.BytesIO(), format="PNG")
    seconds = time.perf_counter() - begin
    print(json.dumps({"jobs_per_second": (len(jobs) - warm_up) / seconds}))


if __name__ == "__main__":
    main()
