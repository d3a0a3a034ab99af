"""Measure the digits model through the running system.

    python examples/digits/evaluate.py                        # starts a system for the purpose
    python examples/digits/evaluate.py --address HOST:PORT    # uses one that runs
    python examples/digits/evaluate.py --reference            # unsplit diffusers, for comparison

Prompts go evenly through all digits and colours, half of them in wordings that the model was not
trained on. The exit status is 1 when the pictures are not good enough (see ``digitkit.report``).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from contact_sheet import contact_sheet
from digitkit.pictures import SIZE, load_split
from digitkit.prompts import evaluation_prompts
from digitkit.reading import DigitReader
from digitkit.report import judge
from PIL import Image

MODEL = Path(__file__).resolve().parents[2] / "disagfusion" / "local" / "digits"
STEPS = 8
TEXT_LENGTH = 32
"""``max_sequence_length``: enough for these prompts, and much cheaper than the default of 512."""
FIRST_SEED = 1_000_000

Generate = Callable[[str, int], Image.Image]
"""Makes the picture for a prompt and a seed."""


@contextmanager
def through_the_system(address: str | None, steps: int) -> Iterator[Generate]:
    """Generate with the client SDK, on a running system or on an embedded one."""
    from disagfusion.client import Client

    if address is None:
        from disagfusion.local import LocalRuntime

        with (
            LocalRuntime(model=MODEL) as runtime,
            through_the_system(runtime.address, steps) as generate,
        ):
            yield generate
        return
    with Client(address) as client:

        def generate(prompt: str, seed: int) -> Image.Image:
            result = client.generate(
                prompt=prompt,
                seed=seed,
                num_inference_steps=steps,
                height=SIZE,
                width=SIZE,
                parameters={"max_sequence_length": TEXT_LENGTH},
            )
            picture: Image.Image = result.images[0]
            return picture

        yield generate


@contextmanager
def through_diffusers(model: Path, steps: int, threads: int) -> Iterator[Generate]:
    """Generate with the unsplit ``FluxPipeline`` in this process."""
    import torch
    from diffusers import FluxPipeline

    torch.set_num_threads(threads)
    pipeline = FluxPipeline.from_pretrained(model)
    pipeline.set_progress_bar_config(disable=True)

    def generate(prompt: str, seed: int) -> Image.Image:
        picture: Image.Image = pipeline(
            prompt,
            height=SIZE,
            width=SIZE,
            num_inference_steps=steps,
            max_sequence_length=TEXT_LENGTH,
            generator=torch.Generator().manual_seed(seed),
        ).images[0]
        return picture

    yield generate


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--address", help="HOST:PORT of a running gateway")
    source.add_argument("--reference", action="store_true", help="unsplit diffusers instead")
    parser.add_argument("--model", type=Path, default=MODEL, help="for --reference")
    parser.add_argument("--threads", type=int, default=1, help="for --reference")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--sheet", type=Path, help="write a contact sheet (PNG)")
    args = parser.parse_args(argv)
    if args.prompts < 1:
        parser.error("--prompts must be at least 1")
    return args


def main(argv: list[str] | None = None) -> int:
    args = parse_arguments(argv)
    train, held_out = load_split()
    reader = DigitReader.fit(train, held_out)
    asked = evaluation_prompts(args.prompts)
    if args.reference:
        source = through_diffusers(args.model, args.steps, args.threads)
    else:
        source = through_the_system(args.address, args.steps)
    with source as generate:
        pictures = [
            generate(prompt, args.first_seed + index) for index, (prompt, _) in enumerate(asked)
        ]
    report = judge(pictures, asked, reader, held_out)
    if args.sheet is not None:
        shown = min(60, len(pictures))
        captions = [prompt for prompt, _ in asked[:shown]]
        contact_sheet(pictures[:shown], captions, columns=10).save(args.sheet)
    print(json.dumps(report.as_dict()) if args.json else report.table())
    return 1 if report.failures() else 0


if __name__ == "__main__":
    sys.exit(main())
