"""All that is known about single model families; nothing of the kind is anywhere else.

diffusers' blocks say what a family needs and reads. This table holds only what they leave out.
Importing it imports neither torch nor diffusers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from disagfusion.pipeline.stages import Stage


@dataclass(frozen=True, slots=True)
class Family:
    """What diffusers' blocks do not say about a family.

    Attributes:
        patch: Latent pixels per side that the DiT takes together, where its configuration has no
            `patch_size`.
        ghosts: Components that a stage's blocks declare but read only a configuration of.
        guider: Arguments of the guider's class beside the scale.
        enabled_above: The guider is enabled where the scale is above it; None: diffusers' rule.
        encoder_keeps_guider: The encoder makes negative embeddings whatever the scale, because
            the DiT asks for them.
        hidden_workflows: Parts of names of workflows that are not served.
    """

    patch: int | None = None
    ghosts: MappingProxyType[Stage, frozenset[str]] = field(
        default_factory=lambda: MappingProxyType({})
    )
    guider: MappingProxyType[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    enabled_above: float | None = None
    encoder_keeps_guider: bool = False
    hidden_workflows: tuple[str, ...] = ()


# Pipeline classes that diffusers' own table from class to family lacks; and the embedded model's,
# because asking that table imports every pipeline that diffusers has, which takes seconds.
CLASS_TO_FAMILY: dict[str, str] = {
    "FluxPipeline": "flux",
    "ErnieImagePipeline": "ernie-image",
    "HunyuanVideo15Pipeline": "hunyuan-video-1.5",
    "HunyuanVideo15ImageToVideoPipeline": "hunyuan-video-1.5",
    "LTX2Pipeline": "ltx2",
    "LTX2ImageToVideoPipeline": "ltx2",
}


FAMILIES: dict[str, Family] = {
    # Flux packs two by two latent pixels into one token outside the transformer.
    "flux": Family(patch=2),
    "flux-kontext": Family(patch=2),
    "flux2": Family(patch=2),
    "flux2-klein": Family(patch=2),
    # The DiT reads the VAE's scale factor; the encoder declares the denoiser for IP adapters,
    # which are not served.
    "stable-diffusion-xl": Family(
        ghosts=MappingProxyType({Stage.DIT: frozenset({"vae"}), Stage.ENCODER: frozenset({"unet"})})
    ),
    # The classic pipeline applies guidance as cond + scale × (cond − uncond), off at 0.
    "z-image": Family(
        patch=2,
        guider=MappingProxyType({"use_original_formulation": True}),
        enabled_above=0.0,
    ),
    "cosmos3-omni": Family(patch=2),
    "ltx": Family(encoder_keeps_guider=True),
}

_PLAIN = Family()


def family_of(key: str) -> Family:
    """Return what the table says about a family, or what holds for all others."""
    return FAMILIES.get(key, _PLAIN)
