"""The DiT's engine: the denoising loop, as the shared runtime runs it."""

from __future__ import annotations

from disagfusion.stage.stage_engine import StageEngine


class DitEngine(StageEngine):
    """Denoises: conditioning to latents."""
