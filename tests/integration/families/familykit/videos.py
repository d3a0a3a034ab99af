"""The video families; each function returns a classic pipeline."""

from __future__ import annotations

from typing import Any

import diffusers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    CLIPVisionModel,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
    UMT5Config,
    UMT5EncoderModel,
)

from . import texts
from .parts import t5_text
from .weights import seeded


def umt5(hidden: int = 16) -> Any:
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=len(texts.t5()), d_model=hidden, d_kv=8, d_ff=16, num_heads=2, num_layers=1
        )
    )


def wan_vae(channels: int = 4) -> Any:
    return diffusers.AutoencoderKLWan(
        base_dim=4,
        z_dim=channels,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * channels,
        latents_std=[1.0] * channels,
    )


def wan_transformer(in_channels: int = 4, **kwargs: Any) -> Any:
    return diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=in_channels,
        out_channels=4,
        text_dim=16,
        freq_dim=16,
        ffn_dim=32,
        num_layers=1,
        rope_max_seq_len=32,
        **kwargs,
    )


def _wan_parts(transformer: Any, *more: Any) -> dict[str, Any]:
    parts = (umt5(), wan_vae(), transformer, *more)
    seeded(*parts)
    return {
        "text_encoder": parts[0],
        "tokenizer": texts.t5(),
        "vae": parts[1],
        "transformer": parts[2],
        "scheduler": diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    }


def wan() -> Any:
    return diffusers.WanPipeline(**_wan_parts(wan_transformer()))


def wan22() -> Any:
    second = wan_transformer()
    parts = _wan_parts(wan_transformer(), second)
    return diffusers.WanPipeline(**parts, transformer_2=second, boundary_ratio=0.875)


def _clip_vision() -> Any:
    return CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=8,
            intermediate_size=8,
            projection_dim=8,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=16,
        )
    )


def _wan_i2v(**kwargs: Any) -> Any:
    vision = _clip_vision()
    transformer = wan_transformer(12, image_dim=8, added_kv_proj_dim=24, **kwargs)
    return diffusers.WanImageToVideoPipeline(
        **_wan_parts(transformer, vision),
        image_encoder=vision,
        image_processor=CLIPImageProcessor(size=32, crop_size=32),
    )


def wan_i2v() -> Any:
    return _wan_i2v()


def wan_flf2v() -> Any:
    return _wan_i2v(pos_embed_seq_len=2 * 5)


def wan22_i2v() -> Any:
    second = wan_transformer(12)
    parts = _wan_parts(wan_transformer(12), second)
    return diffusers.WanImageToVideoPipeline(
        **parts,
        transformer_2=second,
        image_encoder=None,
        image_processor=None,
        boundary_ratio=0.875,
    )


def hunyuan_video15() -> Any:
    text_encoder = Qwen2_5_VLTextModel(
        Qwen2_5_VLTextConfig(
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            num_key_value_heads=2,
            rope_scaling={"mrope_section": [1, 1, 2], "rope_type": "default", "type": "default"},
            vocab_size=len(texts.qwen()),
        )
    )
    transformer = diffusers.HunyuanVideo15Transformer3DModel(
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        num_refiner_layers=1,
        mlp_ratio=2.0,
        text_embed_dim=16,
        text_embed_2_dim=16,
        image_embed_dim=16,
        rope_axes_dim=(2, 2, 4),
        target_size=16,
        task_type="t2v",
    )
    vae = diffusers.AutoencoderKLHunyuanVideo15(
        latent_channels=4,
        block_out_channels=(16, 16),
        layers_per_block=1,
        spatial_compression_ratio=4,
        temporal_compression_ratio=2,
        downsample_match_channel=False,
        upsample_match_channel=False,
    )
    glyphs = t5_text()
    glyphs.resize_token_embeddings(len(texts.byt5()))
    seeded(text_encoder, transformer, vae, glyphs)
    return diffusers.HunyuanVideo15Pipeline(
        text_encoder=text_encoder,
        tokenizer=texts.qwen(),
        transformer=transformer,
        vae=vae,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        text_encoder_2=glyphs,
        tokenizer_2=texts.byt5(),
        guider=diffusers.ClassifierFreeGuidance(),
    )


def ltx() -> Any:
    transformer = diffusers.LTXVideoTransformer3DModel(
        in_channels=8,
        out_channels=8,
        num_attention_heads=2,
        attention_head_dim=16,
        cross_attention_dim=32,
        num_layers=1,
        caption_channels=16,
    )
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False, False, False, False, False),
        upsample_residual=(False, False, False, False),
        upsample_factor=(1, 1, 1, 1),
        timestep_conditioning=False,
        patch_size=1,
        patch_size_t=1,
    )
    text_encoder = t5_text()
    seeded(text_encoder, transformer, vae)
    return diffusers.LTXPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=texts.t5(),
        transformer=transformer,
    )


def cosmos3() -> Any:
    transformer = diffusers.Cosmos3OmniTransformer(
        head_dim=12,
        hidden_size=24,
        intermediate_size=24,
        latent_channel=4,
        latent_patch_size=2,
        patch_latent_dim=16,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_hidden_layers=1,
        vocab_size=len(texts.qwen()),
        rope_scaling={"mrope_section": [2, 2, 2]},
    )
    vae = wan_vae()
    seeded(transformer, vae)
    return diffusers.Cosmos3OmniPipeline(
        transformer=transformer,
        text_tokenizer=texts.qwen(),
        vae=vae,
        scheduler=diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        enable_safety_checker=False,
    )


def helios() -> Any:
    transformer = diffusers.HeliosTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=2,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=16,
        freq_dim=16,
        ffn_dim=32,
        num_layers=1,
        rope_dim=(4, 4, 4),
    )
    parts = (umt5(), wan_vae(), transformer)
    seeded(*parts)
    return diffusers.HeliosPipeline(
        text_encoder=parts[0],
        tokenizer=texts.t5(),
        vae=parts[1],
        transformer=parts[2],
        scheduler=diffusers.HeliosScheduler(stages=1, stage_range=[0, 1], scheduler_type="unipc"),
    )


__all__ = [
    "cosmos3",
    "helios",
    "hunyuan_video15",
    "ltx",
    "wan",
    "wan22",
    "wan22_i2v",
    "wan_flf2v",
    "wan_i2v",
]
