"""The picture coder: a small ``AutoencoderKL`` from 64×64 pixels to 8×8×4 latents and back."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch.nn import functional

from .pictures import COLOURS, Array

LATENT_CHANNELS = 4
PAPER = 1.06
_INKS = torch.tensor(list(COLOURS.values()), dtype=torch.float32) / 255.0

Log = Callable[[str], None]


def build() -> AutoencoderKL:
    """Return the untrained coder; four levels, so the scale factor is 8."""
    levels = 4
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=(16, 24, 32, 32),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=8,
        sample_size=64,
        use_quant_conv=False,
        use_post_quant_conv=False,
        mid_block_add_attention=False,
    )


def paint(ink: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    """Draw ink maps (batch, 64, 64) in palette colours (batch,): (batch, 3, 64, 64) in -1–1.06."""
    absorbed = (1.0 - _INKS[colours])[:, :, None, None]
    # Paper is painted a little whiter than white, so that after clipping it has no faint tint.
    return PAPER - (PAPER - 1.0 + 2.0 * absorbed) * ink[:, None]


def train(
    vae: AutoencoderKL, ink: Array, steps: int, batch: int, generator: torch.Generator, log: Log
) -> None:
    """Fit the coder to ink maps (count, 64, 64) in random palette colours, in place.

    The loss is squared error plus a weak KL term; reconstructions are made from *sampled* latents,
    so that the decoder forgives the small errors that a denoiser makes.
    """
    # The convolutions run twice as fast on the processor with channels last.
    vae.train().to(memory_format=torch.channels_last)
    maps = torch.from_numpy(ink)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=3e-3, betas=(0.9, 0.99), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 3e-3, total_steps=steps, pct_start=0.15
    )
    started = time.monotonic()
    for step in range(1, steps + 1):
        pick = torch.randint(len(maps), (batch,), generator=generator)
        colours = torch.randint(len(_INKS), (batch,), generator=generator)
        target = paint(maps[pick], colours)
        posterior = vae.encode(target).latent_dist
        picture = vae.decode(posterior.sample(generator)).sample
        error = functional.mse_loss(picture, target)
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        loss = error + 3e-4 * kl
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps:
            log(
                f"autoencoder {step}/{steps}: error {error.item():.5f}, "
                f"KL per value {kl.item():.2f}, {time.monotonic() - started:.0f} s"
            )
    vae.eval()


@torch.no_grad()
def encode(vae: AutoencoderKL, ink: Array, colour: int, batch: int = 16) -> torch.Tensor:
    """Return the mean latents (count, 4, 8, 8) of ink maps in one palette colour, unscaled."""
    maps = torch.from_numpy(ink)
    parts = [
        vae.encode(paint(part, torch.full((len(part),), colour))).latent_dist.mean
        for part in maps.split(batch)
    ]
    return torch.cat(parts)


def normalise(vae: AutoencoderKL, latents: torch.Tensor) -> torch.Tensor:
    """Write the latents' shift and scale into the coder's config and return them normalised."""
    shift, scale = latents.mean().item(), 1.0 / latents.std().item()
    vae.register_to_config(shift_factor=shift, scaling_factor=scale)
    return (latents - shift) * scale


def reconstruction_error(vae: AutoencoderKL, ink: Array, colour: int) -> float:
    """Return the root mean squared error in 8-bit levels on ink maps in one colour."""
    target = paint(torch.from_numpy(ink), torch.full((len(ink),), colour))
    with torch.no_grad():
        mean = vae.encode(target).latent_dist.mean
        picture = vae.decode(mean).sample
    error = functional.mse_loss(picture.clamp(-1.0, 1.0), target.clamp(-1.0, 1.0))
    return float(np.sqrt(error.item()) * 127.5)
