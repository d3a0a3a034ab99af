"""The unsplit diffusers pipeline in one process. Imports nothing of DisagFusion.

    python monolith.py MODEL MODE THREADS [DIRECTORY]

MODE is `resident` (weights are copied into memory), `mapped` (weights stay files that are mapped
into memory, as from_pretrained leaves them) or `offloading` (diffusers' group offloading to files
in DIRECTORY). Standard input has the pipeline's arguments, a JSON object a line, with `seed` for
the generator; for each one line is printed when the picture is encoded. The first line printed says
that the pipeline is ready.
"""

from __future__ import annotations

import base64
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
)
from diffusers.hooks.group_offloading import apply_group_offloading
from transformers import CLIPTextModel, CLIPTokenizer, T5EncoderModel, T5Tokenizer

MODES = ("resident", "mapped", "offloading")
CPU = torch.device("cpu")
LARGE: dict[str, tuple[Any, dict[str, Any]]] = {
    "text_encoder_2": (T5EncoderModel, {"offload_type": "leaf_level"}),
    "transformer": (
        FluxTransformer2DModel,
        {"offload_type": "block_level", "num_blocks_per_group": 1},
    ),
    "vae": (AutoencoderKL, {"offload_type": "leaf_level"}),
}
"""Components with weights worth offloading, and in which groups."""


def load(model: Path, mode: str, directory: Path) -> Any:
    """Return the pipeline; one large component after the other, so that memory suffices."""
    parts: dict[str, Any] = {
        "scheduler": FlowMatchEulerDiscreteScheduler.from_pretrained(model / "scheduler"),  # type: ignore[no-untyped-call]
        "tokenizer": CLIPTokenizer.from_pretrained(model / "tokenizer"),
        "tokenizer_2": T5Tokenizer.from_pretrained(model / "tokenizer_2"),
        "text_encoder": CLIPTextModel.from_pretrained(model / "text_encoder"),
    }
    for name, (kind, groups) in LARGE.items():
        module = kind.from_pretrained(model / name)
        if mode == "offloading":
            # T5 ties its encoder's embedding to another name; offloading both loses the weights.
            apply_group_offloading(
                getattr(module, "encoder", module) if kind is T5EncoderModel else module,
                onload_device=CPU,
                offload_device=CPU,
                offload_to_disk_path=str(directory / name),
                **groups,
            )
        elif mode == "resident":
            for tensor in (*module.parameters(), *module.buffers()):
                tensor.data = tensor.data.clone()
        parts[name] = module
    pipeline: Any = FluxPipeline(**parts)  # type: ignore[no-untyped-call]
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def pictures(pipeline: Any, lines: Iterator[str]) -> Iterator[bytes]:
    """Yield an encoded picture for each line."""
    for line in lines:
        job = json.loads(line)
        generator = torch.Generator().manual_seed(job.pop("seed"))
        picture = pipeline(**job, generator=generator).images[0]
        buffer = io.BytesIO()
        picture.save(buffer, format="PNG")
        yield buffer.getvalue()


def main() -> None:
    """Draw what standard input asks for."""
    model, mode, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    if mode not in MODES:
        raise SystemExit(f"mode: {mode!r} (expected {', '.join(MODES)})")
    directory = Path(sys.argv[4]) if len(sys.argv) > 4 else Path()
    torch.set_num_threads(threads)
    pipeline = load(model, mode, directory)
    print(json.dumps({"ready": True}), flush=True)
    for picture in pictures(pipeline, iter(sys.stdin.readline, "")):
        print(json.dumps({"picture": base64.b64encode(picture).decode()}), flush=True)


if __name__ == "__main__":
    main()
