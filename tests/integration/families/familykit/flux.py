"""The Flux families; each public function returns a classic pipeline."""

from __future__ import annotations

from typing import Any

import diffusers
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PixtralImageProcessor,
    PixtralProcessor,
    Qwen3ForCausalLM,
)

from . import texts
from .parts import clip_text, flux2_vae, kl_vae, qwen3, t5_text
from .weights import seeded


def _flux(cls: Any) -> Any:
    transformer = diffusers.FluxTransformer2DModel(
        patch_size=1,
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        guidance_embeds=True,
        axes_dims_rope=(4, 4, 8),
    )
    parts = (clip_text(), t5_text(), transformer, kl_vae())
    seeded(*parts)
    return cls(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        text_encoder=parts[0],
        tokenizer=texts.clip(),
        text_encoder_2=parts[1],
        tokenizer_2=texts.t5(64),
        transformer=parts[2],
        vae=parts[3],
    )


def flux() -> Any:
    return _flux(diffusers.FluxPipeline)


def flux_kontext() -> Any:
    return _flux(diffusers.FluxKontextPipeline)


def flux2_transformer(joint: int = 16, guidance: bool = True) -> Any:
    return diffusers.Flux2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=joint,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=guidance,
    )


def _klein(is_distilled: bool) -> Any:
    # Klein takes the hidden states of layers 9, 18 and 27.
    parts = (qwen3(Qwen3ForCausalLM, layers=28), flux2_transformer(48, False), flux2_vae())
    seeded(*parts)
    return diffusers.Flux2KleinPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        text_encoder=parts[0],
        tokenizer=texts.qwen(),
        transformer=parts[1],
        vae=parts[2],
        is_distilled=is_distilled,
    )


def flux2_klein() -> Any:
    return _klein(True)


def flux2_klein_base() -> Any:
    return _klein(False)


def flux2() -> Any:
    config = Mistral3Config(
        text_config={
            "model_type": "mistral",
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 31,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "vocab_size": len(texts.mistral()),
        },
        vision_config={
            "model_type": "pixtral",
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 16,
        },
        spatial_merge_size=1,
        image_token_index=5,
    )
    # Flux2 takes the hidden states of layers 10, 20 and 30.
    parts = (Mistral3ForConditionalGeneration(config), flux2_transformer(48), flux2_vae())
    seeded(*parts)
    tokenizer = texts.mistral()
    return diffusers.Flux2Pipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        text_encoder=parts[0],
        tokenizer=PixtralProcessor(
            image_processor=PixtralImageProcessor(patch_size=16),
            tokenizer=tokenizer,
            chat_template=tokenizer.chat_template,
        ),
        transformer=parts[1],
        vae=parts[2],
    )


__all__ = ["flux", "flux2", "flux2_klein", "flux2_klein_base", "flux_kontext"]
