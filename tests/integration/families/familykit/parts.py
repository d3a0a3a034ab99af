"""Text encoders and VAEs that several families share."""

from __future__ import annotations

from typing import Any

import diffusers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen3Config,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

from . import texts


def clip_text(cls: Any = CLIPTextModel, **kwargs: Any) -> Any:
    tokens = len(texts.clip())
    return cls(
        CLIPTextConfig(
            vocab_size=tokens,
            bos_token_id=tokens - 2,
            eos_token_id=tokens - 1,
            pad_token_id=tokens - 1,
            hidden_size=16,
            intermediate_size=16,
            projection_dim=16,
            num_attention_heads=2,
            num_hidden_layers=2,
            **kwargs,
        )
    )


def t5_text(hidden: int = 16) -> Any:
    config = T5Config(
        vocab_size=len(texts.t5()), d_model=hidden, d_kv=8, d_ff=16, num_heads=2, num_layers=1
    )
    return T5EncoderModel(config)


def kl_vae(channels: int = 4, **kwargs: Any) -> Any:
    return diffusers.AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        block_out_channels=(8, 8),
        layers_per_block=1,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=32,
        **{"shift_factor": 0.1, "scaling_factor": 0.5, **kwargs},
    )


def qwen_vl(hidden: int = 16) -> Any:
    tokenizer = texts.qwen()
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in texts.QWEN_SPECIAL}
    config = Qwen2_5_VLConfig(
        text_config={
            "hidden_size": hidden,
            "intermediate_size": hidden,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "rope_scaling": {"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
            "rope_theta": 1000000.0,
            "vocab_size": len(tokenizer),
        },
        vision_config={
            "depth": 1,
            "hidden_size": hidden,
            "intermediate_size": hidden,
            "num_heads": 2,
            "out_hidden_size": hidden,
        },
        hidden_size=hidden,
        vocab_size=len(tokenizer),
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        vision_token_id=ids["<|vision_pad|>"],
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
    )
    return Qwen2_5_VLForConditionalGeneration(config)


def qwen_vae(levels: int = 3, base: int = 4) -> Any:
    return diffusers.AutoencoderKLQwenImage(
        base_dim=base,
        z_dim=4,
        dim_mult=[1] * levels,
        num_res_blocks=1,
        temperal_downsample=[False, True, True][: levels - 1],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )


def qwen3(cls: Any = Qwen3Model, hidden: int = 16, layers: int = 2) -> Any:
    return cls(
        Qwen3Config(
            hidden_size=hidden,
            intermediate_size=hidden,
            num_hidden_layers=layers,
            num_attention_heads=2,
            num_key_value_heads=2,
            head_dim=8,
            vocab_size=len(texts.qwen()),
            max_position_embeddings=512,
        )
    )


def flux2_vae() -> Any:
    return diffusers.AutoencoderKLFlux2(
        down_block_types=("DownEncoderBlock2D", "DownEncoderBlock2D"),
        up_block_types=("UpDecoderBlock2D", "UpDecoderBlock2D"),
        block_out_channels=(8, 8),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=32,
    )
