"""The three parts of a pipeline."""

from __future__ import annotations

import enum


class Stage(enum.StrEnum):
    """A part of a diffusion pipeline that can live in a process of its own."""

    ENCODER = "encoder"
    """Prompt and images to conditioning."""
    DIT = "dit"
    """The denoising loop: conditioning to latents."""
    DECODER = "decoder"
    """Latents to pixels."""

    @property
    def previous(self) -> Stage | None:
        """The stage whose outputs this one reads, or None for the first."""
        order = list(Stage)
        position = order.index(self)
        return order[position - 1] if position else None

    @property
    def following(self) -> Stage | None:
        """The stage that reads this one's outputs, or None for the last."""
        order = list(Stage)
        position = order.index(self) + 1
        return order[position] if position < len(order) else None
