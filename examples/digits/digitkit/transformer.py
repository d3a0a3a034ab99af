"""The denoiser: a small ``FluxTransformer2DModel`` trained by flow matching on latents."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from diffusers import FluxTransformer2DModel
from torch.nn import functional

from .autoencoder import LATENT_CHANNELS
from .pictures import COLOURS
from .prompts import COLOUR_NAMES, training_prompt
from .text import T5_WINDOW, WIDTH, TextTower

PROMPTS_PER_PICTURE = 120
"""Wordings kept for each pair of digit and colour."""

TEXT_LENGTHS = (32, 64, 128, 256, 512)
TEXT_LENGTH_SHARES = (0.3, 0.1, 0.1, 0.1, 0.4)
"""The values of ``max_sequence_length`` that training stands for; 512 is the pipelines' default."""

OPEN_PROMPT = "a handwritten digit"
"""What guidance leads away from."""

GRID = 4
"""Height and width of the packed latents of a 64×64 picture."""


def build() -> FluxTransformer2DModel:
    """Return the untrained denoiser."""
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=4 * LATENT_CHANNELS,
        num_layers=2,
        num_single_layers=4,
        attention_head_dim=32,
        num_attention_heads=3,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        guidance_embeds=False,
        axes_dims_rope=(8, 12, 12),
    )


def pack(latents: torch.Tensor) -> torch.Tensor:
    """Pack latents (batch, 4, 8, 8) two by two to (batch, 16, 16), as ``FluxPipeline`` does."""
    batch, channels, _, _ = latents.shape
    cells = latents.view(batch, channels, GRID, 2, GRID, 2).permute(0, 2, 4, 1, 3, 5)
    return cells.reshape(batch, GRID * GRID, channels * 4)


def image_ids() -> torch.Tensor:
    """Return the position of each packed latent, (16, 3)."""
    ids = torch.zeros(GRID, GRID, 3)
    ids[..., 1] = torch.arange(GRID)[:, None]
    ids[..., 2] = torch.arange(GRID)[None, :]
    return ids.reshape(-1, 3)


def padding_bias(counts: torch.Tensor, kept: int, length: int) -> torch.Tensor:
    """Return the attention bias that makes ``kept`` text tokens stand for ``length``.

    Flux attends to padding. All padding at least two tokens behind the prompt has one embedding
    and no position, so attending to n copies of it equals attending to m copies whose logits are
    raised by log(n / m). That makes training as cheap as the prompts are short and exact for the
    pipelines' 512 tokens.

    Args:
        counts: (batch,) tokens of each prompt, end token included.
        kept: text tokens per prompt that are computed.
        length: text tokens per prompt that are meant.

    Returns:
        (batch, 1, 1, kept + 16): added to the logits of text and picture keys.
    """
    first_alike = counts + T5_WINDOW
    copies = (kept - first_alike).clamp(min=1)
    raise_by = torch.log((length - first_alike) / copies)
    alike = torch.arange(kept)[None] >= first_alike[:, None]
    text = torch.where(alike, raise_by[:, None], 0.0)
    picture = torch.zeros(len(counts), GRID * GRID)
    return torch.cat([text, picture], dim=1)[:, None, None, :]


@dataclass(frozen=True)
class PromptPool:
    """Encoded prompts, grouped by the digit and colour of the picture they go with.

    ``pooled`` (10, colours, prompts, WIDTH), ``embeds`` (10, colours, prompts, kept, WIDTH) and
    ``counts`` (10, colours, prompts).
    """

    pooled: torch.Tensor
    embeds: torch.Tensor
    counts: torch.Tensor


@torch.no_grad()
def encode_prompts(tower: TextTower, rng: np.random.Generator) -> PromptPool:
    """Draw and encode the training prompts of every digit and colour."""
    prompts = [
        training_prompt(digit, colour, rng)[0]
        for digit in range(10)
        for colour in COLOUR_NAMES
        for _ in range(PROMPTS_PER_PICTURE)
    ]
    longest = max(len(ids) for ids in tower.t5_tokenizer(prompts).input_ids)
    kept = longest + T5_WINDOW + 1
    pooled, embeds, counts = [], [], []
    for start in range(0, len(prompts), 256):
        part = prompts[start : start + 256]
        pooled.append(tower.pooled(part))
        sequence, tokens = tower.sequence(part, kept)
        embeds.append(sequence)
        counts.append(tokens)
    shape = (10, len(COLOURS), PROMPTS_PER_PICTURE)
    return PromptPool(
        torch.cat(pooled).view(*shape, -1),
        torch.cat(embeds).view(*shape, kept, -1),
        torch.cat(counts).view(*shape),
    )


class _Average:
    """Exponential moving average of a model's weights, with a warm-up."""

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self._decay = decay
        self._steps = 0
        self._source = [weight for weight in model.parameters()]
        self._mean = [weight.detach().clone() for weight in self._source]

    @torch.no_grad()
    def update(self) -> None:
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        torch._foreach_lerp_(self._mean, [w.detach() for w in self._source], 1 - decay)

    @torch.no_grad()
    def copy_to_model(self) -> None:
        for weight, mean in zip(self._source, self._mean, strict=True):
            weight.copy_(mean)


@dataclass(frozen=True)
class TrainingSet:
    """Packed latents (colours, count, 16, 16), the digit of each (count,), and the prompts."""

    latents: torch.Tensor
    labels: torch.Tensor
    prompts: PromptPool

    def draw(
        self, batch: int, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return a random batch: latents, pooled, prompt embeddings, token counts."""
        pick = torch.randint(len(self.labels), (batch,), generator=generator)
        colour = torch.randint(len(self.latents), (batch,), generator=generator)
        wording = torch.randint(PROMPTS_PER_PICTURE, (batch,), generator=generator)
        key = (self.labels[pick], colour, wording)
        pool = self.prompts
        return self.latents[colour, pick], pool.pooled[key], pool.embeds[key], pool.counts[key]


@dataclass(frozen=True)
class Condition:
    """What a batch is denoised towards: pooled and per-token embeddings, and token counts."""

    pooled: torch.Tensor
    embeds: torch.Tensor
    counts: torch.Tensor


def predict(
    model: FluxTransformer2DModel,
    mixed: torch.Tensor,
    sigma: torch.Tensor,
    condition: Condition,
    text_length: int,
) -> torch.Tensor:
    """Return the velocity (batch, 16, 16) as if prompts were padded to ``text_length``."""
    kept = condition.embeds.shape[1]
    velocity: torch.Tensor = model(
        hidden_states=mixed,
        timestep=sigma,
        pooled_projections=condition.pooled,
        encoder_hidden_states=condition.embeds,
        txt_ids=torch.zeros(kept, 3),
        img_ids=image_ids(),
        joint_attention_kwargs={
            "attention_mask": padding_bias(condition.counts, kept, text_length)
        },
        return_dict=False,
    )[0]
    return velocity


@dataclass(frozen=True)
class Task:
    """One random batch: packed latents, their noised mixture, and what goes with them."""

    latents: torch.Tensor
    noise: torch.Tensor
    mixed: torch.Tensor
    sigma: torch.Tensor
    condition: Condition
    text_length: int


def draw_task(data: TrainingSet, batch: int, generator: torch.Generator) -> Task:
    """Return latents mixed with noise: ``(1 - sigma) * latents + sigma * noise``.

    Sigma is logit-normal (Esser et al., 2024, https://arxiv.org/abs/2403.03206).
    """
    latents, pooled, embeds, counts = data.draw(batch, generator)
    noise = torch.randn(latents.shape, generator=generator)
    sigma = torch.sigmoid(torch.randn(batch, generator=generator) + 0.2)
    mixed = torch.lerp(latents, noise, sigma[:, None, None])
    shares = torch.tensor(TEXT_LENGTH_SHARES)
    length = TEXT_LENGTHS[int(torch.multinomial(shares, 1, generator=generator))]
    return Task(latents, noise, mixed, sigma, Condition(pooled, embeds, counts), length)


def flow_loss(model: FluxTransformer2DModel, task: Task) -> torch.Tensor:
    """Return the flow-matching loss: the model predicts ``noise - latents``."""
    velocity = predict(model, task.mixed, task.sigma, task.condition, task.text_length)
    return functional.mse_loss(velocity, task.noise - task.latents)


class GuidanceLoss:
    """Teaches a model to predict at once what its frozen copy predicts with guidance.

    Classifier-free guidance (Ho and Salimans, 2022, https://arxiv.org/abs/2207.12598) moves the
    prediction for a prompt away from that for "a handwritten digit", which leaves digit and colour
    open, and so needs two passes per step. Distilled (Meng et al., 2023,
    https://arxiv.org/abs/2210.03142), with one fixed scale, it needs one.
    """

    def __init__(self, teacher: FluxTransformer2DModel, tower: TextTower, scale: float) -> None:
        self._teacher = copy.deepcopy(teacher).eval().requires_grad_(False)
        self._tower = tower
        self._scale = scale

    def __call__(self, model: FluxTransformer2DModel, task: Task) -> torch.Tensor:
        """Return the squared distance from the teacher's guided prediction."""
        batch, kept, _ = task.condition.embeds.shape
        with torch.no_grad():
            embeds, counts = self._tower.sequence([OPEN_PROMPT], kept)
            pooled = self._tower.pooled([OPEN_PROMPT])
            nothing = Condition(
                pooled.expand(batch, -1), embeds.expand(batch, -1, -1), counts.expand(batch)
            )
            inputs = (task.mixed, task.sigma)
            told = predict(self._teacher, *inputs, task.condition, task.text_length)
            untold = predict(self._teacher, *inputs, nothing, task.text_length)
        velocity = predict(model, *inputs, task.condition, task.text_length)
        return functional.mse_loss(velocity, torch.lerp(untold, told, self._scale))


@dataclass(frozen=True)
class Phase:
    """One stretch of training."""

    name: str
    steps: int
    batch: int
    learning_rate: float
    loss: Callable[[FluxTransformer2DModel, Task], torch.Tensor] = flow_loss


def train(
    model: FluxTransformer2DModel,
    data: TrainingSet,
    phase: Phase,
    generator: torch.Generator,
    log: Callable[[str], None],
) -> None:
    """Train the denoiser in place; it ends up with the average of its recent weights."""
    model.train()
    matrices = [w for w in model.parameters() if w.ndim > 1]
    others = [w for w in model.parameters() if w.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": 0.01}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=phase.learning_rate, betas=(0.9, 0.98))
    steps = phase.steps
    warmup = max(1, min(200, steps // 10))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda s: min(1.0, (s + 1) / warmup) * (0.02 + 0.49 * (1 + math.cos(math.pi * s / steps))),
    )
    average = _Average(model, decay=0.998)
    started, recent = time.monotonic(), []
    for step in range(1, steps + 1):
        loss = phase.loss(model, draw_task(data, phase.batch, generator))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        average.update()
        recent.append(loss.item())
        if step % 100 == 0 or step == steps:
            seconds = time.monotonic() - started
            log(f"{phase.name} {step}/{steps}: loss {np.mean(recent):.4f}, {seconds:.0f} s")
            recent.clear()
    average.copy_to_model()
    model.eval()
