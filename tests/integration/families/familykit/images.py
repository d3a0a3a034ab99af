"""The other image families; each public function returns a classic pipeline."""

from __future__ import annotations

from typing import Any

import diffusers
from transformers import (
    CLIPTextModelWithProjection,
    Mistral3Config,
    Mistral3Model,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3VLConfig,
    Qwen3VLModel,
)

from . import texts
from .parts import clip_text, flux2_vae, kl_vae, qwen3, qwen_vae, qwen_vl, t5_text
from .weights import seeded


def sd3() -> Any:
    transformer = diffusers.SD3Transformer2DModel(
        sample_size=32,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=32,
        caption_projection_dim=16,
        pooled_projection_dim=32,
    )
    parts = (
        clip_text(CLIPTextModelWithProjection),
        clip_text(CLIPTextModelWithProjection),
        t5_text(32),
        transformer,
        kl_vae(),
    )
    seeded(*parts)
    return diffusers.StableDiffusion3Pipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        text_encoder=parts[0],
        tokenizer=texts.clip(),
        text_encoder_2=parts[1],
        tokenizer_2=texts.clip(),
        text_encoder_3=parts[2],
        tokenizer_3=texts.t5(),
        transformer=parts[3],
        vae=parts[4],
    )


def sdxl() -> Any:
    unet = diffusers.UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 1),
        projection_class_embeddings_input_dim=64,
        cross_attention_dim=32,
        norm_num_groups=4,
    )
    parts = (
        clip_text(),
        clip_text(CLIPTextModelWithProjection),
        unet,
        kl_vae(shift_factor=None),
    )
    seeded(*parts)
    return diffusers.StableDiffusionXLPipeline(
        scheduler=diffusers.EulerDiscreteScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            steps_offset=1,
            beta_schedule="scaled_linear",
            timestep_spacing="leading",
        ),
        text_encoder=parts[0],
        tokenizer=texts.clip(),
        text_encoder_2=parts[1],
        tokenizer_2=texts.clip(),
        unet=parts[2],
        vae=parts[3],
    )


def qwen_transformer() -> Any:
    return diffusers.QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        axes_dims_rope=(8, 4, 4),
    )


def _qwen_parts(vae: Any) -> dict[str, Any]:
    parts = (qwen_vl(), qwen_transformer(), vae)
    seeded(*parts)
    return {
        "scheduler": diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        "text_encoder": parts[0],
        "tokenizer": texts.qwen(),
        "transformer": parts[1],
        "vae": parts[2],
    }


def qwen_image() -> Any:
    return diffusers.QwenImagePipeline(**_qwen_parts(qwen_vae()))


def qwen_processor() -> Any:
    image_processor = Qwen2VLImageProcessor(
        patch_size=14, min_pixels=56 * 56, max_pixels=56 * 56, merge_size=2
    )
    video_processor = Qwen2VLVideoProcessor()
    return Qwen2VLProcessor(
        image_processor=image_processor,
        tokenizer=texts.qwen(),
        video_processor=video_processor,
        chat_template=texts.CHATML,
    )


def qwen_image_edit() -> Any:
    # Pictures are resized to a megapixel whatever one asks, so each latent pixel should be large.
    vae = qwen_vae(4, 2)
    return diffusers.QwenImageEditPipeline(**_qwen_parts(vae), processor=qwen_processor())


def z_image() -> Any:
    transformer = diffusers.ZImageTransformer2DModel(
        in_channels=16,
        dim=32,
        n_layers=1,
        n_refiner_layers=1,
        n_heads=2,
        n_kv_heads=2,
        cap_feat_dim=16,
        axes_dims=[8, 4, 4],
        axes_lens=[256, 32, 32],
    )
    parts = (qwen3(), transformer, kl_vae(16))
    seeded(*parts)
    return diffusers.ZImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        text_encoder=parts[0],
        tokenizer=texts.qwen(),
        transformer=parts[1],
        vae=parts[2],
    )


def ernie_image() -> Any:
    config = Mistral3Config(
        text_config={
            "model_type": "mistral",
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 2,
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
    transformer = diffusers.ErnieImageTransformer2DModel(
        hidden_size=32,
        num_attention_heads=2,
        num_layers=1,
        ffn_hidden_size=32,
        in_channels=16,
        out_channels=16,
        text_in_dim=16,
        rope_axes_dim=(4, 6, 6),
    )
    parts = (Mistral3Model(config), transformer, flux2_vae())
    seeded(*parts)
    return diffusers.ErnieImagePipeline(
        transformer=parts[1],
        vae=parts[2],
        text_encoder=parts[0],
        tokenizer=texts.mistral(),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        pe=None,
        pe_tokenizer=None,
    )


def krea2() -> Any:
    tokenizer = texts.qwen()
    config = Qwen3VLConfig(
        text_config={
            "hidden_size": 16,
            "intermediate_size": 16,
            # Krea 2 takes the hidden states of twelve layers, up to the 35th.
            "num_hidden_layers": 36,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "vocab_size": len(tokenizer),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 1, 1],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_heads": 2,
            "out_hidden_size": 16,
            "deepstack_visual_indexes": [0],
        },
    )
    transformer = diffusers.Krea2Transformer2DModel(
        in_channels=16,
        num_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        num_key_value_heads=2,
        intermediate_size=32,
        timestep_embed_dim=16,
        text_hidden_dim=16,
        text_num_attention_heads=2,
        text_num_key_value_heads=2,
        text_intermediate_size=16,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(4, 6, 6),
    )
    parts = (Qwen3VLModel(config), transformer, qwen_vae())
    seeded(*parts)
    return diffusers.Krea2Pipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=parts[2],
        text_encoder=parts[0],
        tokenizer=tokenizer,
        transformer=parts[1],
    )


__all__ = ["ernie_image", "krea2", "qwen_image", "qwen_image_edit", "sd3", "sdxl", "z_image"]
