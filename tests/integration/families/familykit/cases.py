"""The cases: a model, a request, what it must be sensitive to, and what it must equal."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Case:
    """One workflow of one family.

    Attributes:
        name: For people and for pytest.
        model: Builder in `familykit.models`.
        modular: diffusers' modular class for the reference.
        workflow: Which one the request must select.
        request: The request.
        changes: Changes of the request, each of which must change the latents.
        output: Name of the result.
        classic: The classic pipeline's class, None where there is none to compare with.
        tolerance: Greatest difference to the classic pipeline; 0 is bit for bit, None is not
            asserted because diffusers' own two implementations differ.
        classic_request: What the classic pipeline takes otherwise; None removes.
        guider: What the reference's guider needs beside the scale.
        modular_fails: The unsplit modular pipeline cannot do this; the classic one counts.
        components: What each stage must have loaded.
        note: For docs/families.md.
    """

    name: str
    model: str
    modular: str
    workflow: str
    request: dict[str, Any]
    changes: dict[str, dict[str, Any]]
    output: str = "images"
    classic: str | None = None
    tolerance: float | None = 0.0
    classic_request: dict[str, Any] = field(default_factory=dict)
    guider: dict[str, Any] | None = None
    modular_fails: bool = False
    components: dict[str, list[str]] = field(default_factory=dict)
    note: str = ""


def noise(width: int, height: int, seed: int) -> dict[str, Any]:
    return {"noise": [width, height, seed]}


PROMPT = {"prompt": {"prompt": "two blue boats"}}
NEGATIVE = {"negative": {"negative_prompt": "dull and grey"}}
GUIDANCE = {"guidance": {"guidance_scale": 6.5}}
SEED = {"seed": {"seed": 8}}


def image_request(size: int = 32, **more: Any) -> dict[str, Any]:
    return {
        "prompt": "a red seven",
        "height": size,
        "width": size,
        "num_inference_steps": 3,
        "guidance_scale": 3.0,
        "seed": 7,
        **more,
    }


def video_request(size: int = 16, frames: int = 5, **more: Any) -> dict[str, Any]:
    return image_request(size, num_frames=frames, **more)


def _image(size: int = 32, name: str = "image") -> dict[str, Any]:
    return {name: {name: noise(size, size, 2)}}


def _with_image(size: int = 32, **more: Any) -> dict[str, Any]:
    return {"image": noise(size, size, 1), **more}


# Strength high enough to change something, low enough to keep something of the picture.
_STRENGTH = {"strength": 0.5, "num_inference_steps": 4}
_CFG = {**PROMPT, **NEGATIVE, **GUIDANCE, **SEED}

IMAGE_CASES = [
    Case(
        "flux-t2i",
        "flux",
        "FluxModularPipeline",
        "text2image",
        image_request(),
        {**PROMPT, **GUIDANCE, **SEED},
        classic="FluxPipeline",
        components={
            "encoder": ["text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "vae"],
            "dit": ["scheduler", "transformer"],
            "decoder": ["vae"],
        },
    ),
    Case(
        "flux-i2i",
        "flux",
        "FluxModularPipeline",
        "image2image",
        image_request(**_with_image(), **_STRENGTH),
        {**PROMPT, **GUIDANCE, **SEED, **_image()},
        classic="FluxImg2ImgPipeline",
    ),
    Case(
        "flux-two-pictures",
        "flux",
        "FluxModularPipeline",
        "text2image",
        image_request(num_images_per_prompt=2),
        {**PROMPT},
        classic="FluxPipeline",
    ),
    Case(
        "flux-kontext",
        "flux_kontext",
        "FluxKontextModularPipeline",
        "image_conditioned",
        image_request(**_with_image(), _auto_resize=False, max_area=32 * 32),
        {**PROMPT, **GUIDANCE, **SEED, **_image()},
        classic="FluxKontextPipeline",
    ),
    Case(
        "sd3-t2i",
        "sd3",
        "StableDiffusion3ModularPipeline",
        "text2image",
        image_request(negative_prompt="plain"),
        _CFG,
        classic="StableDiffusion3Pipeline",
        tolerance=5e-6,
    ),
    Case(
        "sd3-t2i-guidance-1",
        "sd3",
        "StableDiffusion3ModularPipeline",
        "text2image",
        image_request(guidance_scale=1.0, negative_prompt="plain"),
        {**PROMPT, **SEED, **GUIDANCE},
        classic="StableDiffusion3Pipeline",
    ),
    Case(
        "sd3-i2i",
        "sd3",
        "StableDiffusion3ModularPipeline",
        "image2image",
        image_request(negative_prompt="plain", **_with_image(), **_STRENGTH),
        {**_CFG, **_image()},
        classic="StableDiffusion3Img2ImgPipeline",
        tolerance=5e-6,
    ),
    Case(
        "sdxl-t2i",
        "sdxl",
        "StableDiffusionXLModularPipeline",
        "text2image",
        image_request(),
        _CFG,
        classic="StableDiffusionXLPipeline",
        tolerance=5e-6,
    ),
    Case(
        "sdxl-i2i",
        "sdxl",
        "StableDiffusionXLModularPipeline",
        "image2image",
        image_request(**_with_image(), **_STRENGTH),
        {**_CFG, **_image()},
        classic="StableDiffusionXLImg2ImgPipeline",
        tolerance=5e-6,
    ),
    Case(
        "sdxl-inpaint",
        "sdxl",
        "StableDiffusionXLModularPipeline",
        "inpainting",
        image_request(**_with_image(), mask_image={"mask": [32, 32, 16]}, **_STRENGTH),
        {**_CFG, **_image(), "mask": {"mask_image": {"mask": [32, 32, 8]}}},
        classic="StableDiffusionXLInpaintPipeline",
        tolerance=None,
        note="diffusers' own two implementations differ",
    ),
    Case(
        "z-image-t2i",
        "z_image",
        "ZImageModularPipeline",
        "text2image",
        image_request(),
        _CFG,
        classic="ZImagePipeline",
        tolerance=5e-6,
        guider={"use_original_formulation": True, "enabled": True},
    ),
    Case(
        "z-image-i2i",
        "z_image",
        "ZImageModularPipeline",
        "image2image",
        image_request(**_with_image(), **_STRENGTH),
        {**_CFG, **_image()},
        classic="ZImageImg2ImgPipeline",
        tolerance=5e-6,
        guider={"use_original_formulation": True, "enabled": True},
    ),
    Case(
        "z-image-turbo",
        "z_image",
        "ZImageModularPipeline",
        "text2image",
        image_request(guidance_scale=0.0),
        {**PROMPT, **SEED, **GUIDANCE},
        classic="ZImagePipeline",
        guider={"use_original_formulation": True, "enabled": False},
    ),
    Case(
        "flux2-klein",
        "flux2_klein",
        "Flux2KleinModularPipeline",
        "text2image",
        image_request(guidance_scale=None),
        {**PROMPT, **SEED},
        classic="Flux2KleinPipeline",
    ),
    Case(
        "flux2-klein-edit",
        "flux2_klein",
        "Flux2KleinModularPipeline",
        "image_conditioned",
        image_request(guidance_scale=None, image=noise(64, 64, 1)),
        {**PROMPT, **SEED, **_image(64)},
        classic="Flux2KleinPipeline",
    ),
    Case(
        "flux2-klein-base",
        "flux2_klein_base",
        "Flux2KleinBaseModularPipeline",
        "text2image",
        image_request(),
        {**PROMPT, **SEED, **GUIDANCE},
        classic="Flux2KleinPipeline",
    ),
    Case(
        "qwen-image-t2i",
        "qwen_image",
        "QwenImageModularPipeline",
        "text2image",
        image_request(negative_prompt="plain"),
        _CFG,
        classic="QwenImagePipeline",
        classic_request={"guidance_scale": None, "true_cfg_scale": 3.0},
    ),
    Case(
        "qwen-image-i2i",
        "qwen_image",
        "QwenImageModularPipeline",
        "image2image",
        image_request(negative_prompt="plain", **_with_image(), **_STRENGTH),
        {**_CFG, **_image()},
        classic="QwenImageImg2ImgPipeline",
        classic_request={"guidance_scale": None, "true_cfg_scale": 3.0},
        tolerance=None,
        note="modular encodes the picture with argmax, classic samples",
    ),
    Case(
        "qwen-image-edit",
        "qwen_image_edit",
        "QwenImageEditModularPipeline",
        "image_conditioned",
        image_request(negative_prompt="plain", num_inference_steps=1, image=noise(32, 32, 1)),
        {**PROMPT, **_image()},
        classic="QwenImageEditPipeline",
        classic_request={"guidance_scale": None, "true_cfg_scale": 3.0},
    ),
]

VIDEO_CASES = [
    Case(
        "wan-t2v",
        "wan",
        "WanModularPipeline",
        "default",
        video_request(),
        _CFG,
        output="videos",
        classic="WanPipeline",
    ),
    Case(
        "wan-i2v",
        "wan_i2v",
        "WanImage2VideoModularPipeline",
        "image2video",
        video_request(**_with_image(16)),
        {**_CFG, **_image(16)},
        output="videos",
        classic="WanImageToVideoPipeline",
    ),
    Case(
        "wan-flf2v",
        "wan_flf2v",
        "WanImage2VideoModularPipeline",
        "flf2v",
        video_request(**_with_image(16), last_image=noise(16, 16, 3)),
        {**_CFG, **_image(16), **_image(16, "last_image")},
        output="videos",
        classic="WanImageToVideoPipeline",
    ),
    Case(
        "wan22-t2v",
        "wan22",
        "Wan22ModularPipeline",
        "default",
        video_request(),
        _CFG,
        output="videos",
        classic="WanPipeline",
    ),
    Case(
        "wan22-i2v",
        "wan22_i2v",
        "Wan22Image2VideoModularPipeline",
        "default",
        video_request(**_with_image(16)),
        {**_CFG, **_image(16)},
        output="videos",
        classic="WanImageToVideoPipeline",
    ),
    Case(
        "hunyuan-video-1.5-t2v",
        "hunyuan_video15",
        "HunyuanVideo15ModularPipeline",
        "text2video",
        video_request(),
        _CFG,
        output="videos",
        classic="HunyuanVideo15Pipeline",
    ),
    Case(
        "ltx-t2v",
        "ltx",
        "LTXModularPipeline",
        "text2video",
        video_request(32, 9, frame_rate=25),
        _CFG,
        output="videos",
        classic="LTXPipeline",
        tolerance=5e-6,
    ),
    Case(
        "ltx-i2v",
        "ltx",
        "LTXModularPipeline",
        "image2video",
        video_request(32, 9, frame_rate=25, **_with_image()),
        {**_CFG, **_image()},
        output="videos",
        classic="LTXImageToVideoPipeline",
    ),
    Case(
        "ltx-t2v-guidance-1",
        "ltx",
        "LTXModularPipeline",
        "text2video",
        video_request(32, 9, frame_rate=25, guidance_scale=1.0),
        {**PROMPT, **SEED, **GUIDANCE},
        output="videos",
        classic="LTXPipeline",
        modular_fails=True,
        note="the unsplit modular pipeline fails: it asks for negative embeddings",
    ),
]

CASES = {case.name: case for case in [*IMAGE_CASES, *VIDEO_CASES]}
