"""Train the digits model: a Flux-layout checkpoint of a few megabytes, on the processor.

    python examples/digits/train.py --output DIR

Three parts are trained one after the other: the text encoders, the picture coder and the
transformer, into which a fixed guidance scale is then distilled. It takes half an hour on two
cores; where others use them, too, set OMP_WAIT_POLICY=PASSIVE.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
)
from digitkit import autoencoder, pictures, text, transformer

VARIANTS = 3
"""Slightly changed renderings of each training digit, beside the digit as it is."""


def log(message: str) -> None:
    print(message, flush=True)


def render_training_ink(rng: np.random.Generator) -> tuple[pictures.Array, np.ndarray]:
    """Return ink maps (count, 64, 64) of the training digits and their variants, and labels."""
    digits, _ = pictures.load_split()
    ink = [pictures.render_ink(image) for image in digits.images]
    ink += [pictures.render_variant(image, rng) for _ in range(VARIANTS) for image in digits.images]
    return np.stack(ink), np.tile(digits.labels, VARIANTS + 1)


def train_autoencoder(ink: pictures.Array, args: argparse.Namespace) -> AutoencoderKL:
    """Return the trained picture coder."""
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    vae = autoencoder.build()
    autoencoder.train(vae, ink, args.autoencoder_steps, 16, generator, log)
    _, held_out = pictures.load_split()
    unseen = np.stack([pictures.render_ink(image) for image in held_out.images[:100]])
    error = autoencoder.reconstruction_error(vae, unseen, colour=0)
    log(f"autoencoder: error on held-out digits {error:.1f} of 255 levels (root mean square)")
    return vae


def train_transformer(
    vae: AutoencoderKL,
    tower: text.TextTower,
    ink: pictures.Array,
    labels: np.ndarray,
    args: argparse.Namespace,
) -> FluxTransformer2DModel:
    """Return the trained denoiser."""
    log(f"encoding {len(ink)} maps of ink in {len(pictures.COLOURS)} colours")
    colours = range(len(pictures.COLOURS))
    latents = torch.stack([autoencoder.encode(vae, ink, colour) for colour in colours])
    latents = autoencoder.normalise(vae, latents)
    packed = torch.stack([transformer.pack(part) for part in latents])
    prompts = transformer.encode_prompts(tower, np.random.default_rng(args.seed))
    data = transformer.TrainingSet(packed, torch.from_numpy(labels), prompts)
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    model = transformer.build()
    learn = transformer.Phase("transformer", args.steps, args.batch, 2e-3)
    transformer.train(model, data, learn, generator, log)
    distil_guidance(model, data, tower, args)
    return model


def distil_guidance(
    model: FluxTransformer2DModel,
    data: transformer.TrainingSet,
    tower: text.TextTower,
    args: argparse.Namespace,
) -> None:
    """Build a fixed guidance scale into the trained denoiser."""
    generator = torch.Generator().manual_seed(args.seed + 1)
    loss = transformer.GuidanceLoss(model, tower, args.guidance)
    distil = transformer.Phase("guidance", args.guidance_steps, args.batch, 4e-4, loss)
    transformer.train(model, data, distil, generator, log)


def assemble(
    vae: AutoencoderKL, tower: text.TextTower, model: FluxTransformer2DModel
) -> FluxPipeline:
    """Return the parts as a diffusers pipeline."""
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.0, use_dynamic_shifting=False),
        vae=vae,
        text_encoder=tower.clip,
        # New ones: a tokenizer keeps, and saves, the padding of its last call.
        tokenizer=text.build_clip_tokenizer(),
        text_encoder_2=tower.t5,
        tokenizer_2=text.build_t5_tokenizer(),
        transformer=model,
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="directory of the checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--text-steps", type=int, default=250)
    parser.add_argument("--autoencoder-steps", type=int, default=800)
    parser.add_argument("--steps", type=int, default=3500, help="steps of the transformer")
    parser.add_argument("--guidance", type=float, default=1.4, help="scale that is built in")
    parser.add_argument("--guidance-steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=64)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    started = time.monotonic()
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    rng = np.random.default_rng(args.seed)
    torch.manual_seed(args.seed)
    tower = text.TextTower()
    text.train(tower, args.text_steps, rng, log)
    ink, labels = render_training_ink(rng)
    vae = train_autoencoder(ink, args)
    model = train_transformer(vae, tower, ink, labels, args)
    assemble(vae, tower, model).save_pretrained(args.output)
    weights = list(args.output.rglob("*.safetensors"))
    for path in weights:
        path.chmod(0o644)  # safetensors writes files that only their owner may read
    size = sum(path.stat().st_size for path in weights)
    log(f"{args.output}: {size / 1e6:.1f} MB of weights, {time.monotonic() - started:.0f} s in all")


if __name__ == "__main__":
    main()
