"""Draw the same pictures with the unsplit diffusers pipelines. Imports nothing of DisagFusion.

    python examples/demo/reference.py REQUEST.json DIRECTORY

The request is one JSON object: `model` (a directory), `threads`, and `jobs`, a list of the
pipeline's arguments with `seed` for the generator. Picture i of the modular pipeline is written to
DIRECTORY/modular-i.png, of the classic one to DIRECTORY/classic-i.png.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import torch
from diffusers import FluxAutoBlocks, FluxPipeline
from PIL import Image


def modular(model: str) -> Any:
    """Return a function that draws with the modular pipeline."""
    pipeline = FluxAutoBlocks().init_pipeline(model)
    pipeline.load_components()
    pipeline.set_progress_bar_config(disable=True)

    def draw(**arguments: Any) -> Image.Image:
        return copy.copy(pipeline)(**arguments, output="images")[0]

    return draw


def classic(model: str) -> Any:
    """Return a function that draws with the classic pipeline."""
    pipeline = FluxPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)

    def draw(**arguments: Any) -> Image.Image:
        return pipeline(**arguments).images[0]

    return draw


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text())
    directory = Path(sys.argv[2])
    torch.set_num_threads(request["threads"])
    for name, draw in (("modular", modular), ("classic", classic)):
        with torch.inference_mode():
            drawer = draw(request["model"])
            for index, job in enumerate(request["jobs"]):
                arguments = {key: value for key, value in job.items() if key != "seed"}
                generator = torch.Generator().manual_seed(job["seed"])
                picture = drawer(**arguments, generator=generator)
                picture.save(directory / f"{name}-{index}.png")
    foreign = sorted(module for module in sys.modules if module.startswith("disagfusion"))
    print(json.dumps({"torch": torch.__version__, "ours": foreign}))


if __name__ == "__main__":
    main()
