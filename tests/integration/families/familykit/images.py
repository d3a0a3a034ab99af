"""The image families; each function returns a classic pipeline."""

from __future__ import annotations

from typing import Any

import diffusers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PixtralImageProcessor,
    PixtralProcessor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
)

from . import texts
from .weights import seeded


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


__all__ = [
    "flux",
    "flux2",
    "flux2_klein",
    "flux2_klein_base",
    "flux_kontext",
    "qwen_image",
    "qwen_image_edit",
    "sd3",
    "sdxl",
    "z_image",
]
