"""What a case is: a model, a request, what it must be sensitive to, and what it must equal."""

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
        output_type: What the pipelines return: floats where they can.
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
    output_type: str = "np"
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


def image_change(size: int = 32, name: str = "image") -> dict[str, Any]:
    return {name: {name: noise(size, size, 2)}}


def with_image(size: int = 32, **more: Any) -> dict[str, Any]:
    return {"image": noise(size, size, 1), **more}


# Strength high enough to change something, low enough to keep something of the picture.
STRENGTH = {"strength": 0.5, "num_inference_steps": 4}
CFG = {**PROMPT, **NEGATIVE, **GUIDANCE, **SEED}
