"""A model of random weights, each stage of which is a few hundred megabytes.

It draws noise: what is measured is how long that takes, and whether two systems draw the same.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from disagfusion.local.deployment import DIGITS

COPIED = ("scheduler", "tokenizer", "tokenizer_2", "text_encoder")
OPTIONS: dict[str, Any] = {"num_inference_steps": 4, "height": 64, "width": 64}
PARAMETERS: dict[str, Any] = {"max_sequence_length": 32}
_SEED = 20260525
_WIDTH, _HEADS = 1024, 16


def make_model(directory: Path) -> dict[str, int]:
    """Write a Flux pipeline of random weights in single precision.

    Tokenizers, scheduler and the small text encoder are those of the digits model.

    Returns:
        Component → bytes of its weights.
    """
    import diffusers
    import torch
    from transformers import T5Config, T5EncoderModel

    untyped: Any = diffusers
    torch.manual_seed(_SEED)
    directory.mkdir(parents=True)
    for name in COPIED:
        shutil.copytree(DIGITS / name, directory / name)
    text = _config("text_encoder_2") | {
        "d_model": _WIDTH, "d_ff": 2816, "d_kv": 64, "num_heads": _HEADS, "num_layers": 9
    }  # fmt: skip
    T5EncoderModel(T5Config(**text)).save_pretrained(directory / "text_encoder_2")
    transformer = _config("transformer") | {
        "attention_head_dim": 64, "num_attention_heads": _HEADS, "axes_dims_rope": (16, 24, 24),
        "num_layers": 2, "num_single_layers": 5, "joint_attention_dim": _WIDTH,
    }  # fmt: skip
    untyped.FluxTransformer2DModel(**transformer).save_pretrained(directory / "transformer")
    vae = _config("vae") | {"block_out_channels": (64, 128, 512, 768), "norm_num_groups": 32}
    untyped.AutoencoderKL(**vae).save_pretrained(directory / "vae")
    shutil.copy(DIGITS / "model_index.json", directory)
    return weights(directory)


def weights(directory: Path) -> dict[str, int]:
    """Return the bytes of each component's weights."""
    return {
        file.parent.name: file.stat().st_size for file in sorted(directory.glob("*/*.safetensors"))
    }


def _config(component: str) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((DIGITS / component / "config.json").read_text())
    return {name: value for name, value in values.items() if not name.startswith("_")}
