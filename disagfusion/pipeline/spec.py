"""What a pipeline is and what it accepts, as data.

A `PipelineSpec` is made where diffusers is (`disagfusion.pipeline.describe`), travels as JSON to
the gateway, and judges requests there without torch: a bad request never reaches a stage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from disagfusion.errors import InvalidArgumentError


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Limits(_Model):
    """What is absurd, whatever the model.

    Attributes:
        max_side: Of height and width, in pixels.
        max_pixels: Of height × width × frames × images per prompt.
        max_num_frames: Frames of a video.
        max_num_inference_steps: Denoising steps.
        max_num_images_per_prompt: Pictures per request.
        max_guidance_scale: Classifier-free or distilled guidance.
        max_prompt_bytes: Of a prompt as UTF-8.
    """

    max_side: int = 8192
    max_pixels: int = 2**30
    max_num_frames: int = 1024
    max_num_inference_steps: int = 1000
    max_num_images_per_prompt: int = 16
    max_guidance_scale: float = 100.0
    max_prompt_bytes: int = 32 * 1024


class Workflow(_Model):
    """One thing a pipeline can do, such as "text2image" or "image2video".

    Attributes:
        name: diffusers' name.
        requires: Inputs that select it: True where any value does, else the value.
        inputs: Every input it reads, by diffusers' names.
    """

    name: str
    requires: dict[str, bool | int | str]
    inputs: tuple[str, ...]

    def fits(self, given: Mapping[str, Any]) -> bool:
        """Return whether a request carries all that selects this workflow."""
        return all(
            name in given and (value is True or given[name] == value)
            for name, value in self.requires.items()
        )


class PipelineSpec(_Model):
    """What a pipeline is and what it accepts.

    Attributes:
        family: diffusers' key for the family, such as "flux".
        class_name: Class in the model's index.
        version: Digest of the model's configurations and the names and sizes of its weights: two
            workers with different versions never work on one job.
        output: What comes out.
        workflows: What it can do with the components that the model has.
        defaults: Effective defaults where known: height, width, num_inference_steps,
            guidance_scale, num_frames, fps, strength, …
        preset: The part of the defaults that the model's directory declares itself, in
            `disagfusion.json`; filled in where a request leaves them out.
        size_multiple: Height and width must be multiples of it, in pixels.
        frames_multiple: `num_frames − 1` must be a multiple of it.
        max_sequence_length: Tokens of the prompt, where the family bounds them.
        limits: What is refused whatever the model.
    """

    family: str
    class_name: str
    version: str
    output: Literal["image", "video", "audio"]
    workflows: tuple[Workflow, ...]
    defaults: dict[str, int | float | str | bool] = Field(default_factory=dict)
    preset: dict[str, int | float | str | bool] = Field(default_factory=dict)
    size_multiple: int = Field(default=8, ge=1)
    frames_multiple: int = Field(default=1, ge=1)
    max_sequence_length: int | None = None
    limits: Limits = Limits()

    def to_json(self) -> str:
        """Return the spec as a JSON document."""
        return self.model_dump_json()

    @classmethod
    def from_json(cls, document: str | bytes) -> PipelineSpec:
        """Read what `to_json` wrote."""
        return cls.model_validate_json(document)

    @property
    def inputs(self) -> frozenset[str]:
        """All parameters that any workflow takes."""
        return frozenset(name for workflow in self.workflows for name in workflow.inputs)

    def complete(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the request with what it leaves out filled in from `preset`."""
        given = {name: value for name, value in request.items() if value is not None}
        return {**self.preset, **given}

    def workflow_of(self, request: Mapping[str, Any]) -> Workflow:
        """Return the workflow that a request asks for by what it carries.

        Raises:
            InvalidArgumentError: No workflow takes this combination of inputs, or one that is
                needed is missing.
        """
        given = {name: value for name, value in request.items() if value is not None}
        fitting = [w for w in self.workflows if w.fits(given)]
        if not fitting:
            missing = next(
                (n for w in self.workflows for n in w.requires if n not in given), "prompt"
            )
            raise InvalidArgumentError(missing, "is missing", expected=self._expected_inputs())
        return max(fitting, key=lambda w: len(w.requires))

    def validate(self, request: Mapping[str, Any]) -> None:  # type: ignore[override]
        """Judge a request. Pure: no torch, no files, no clock.

        Args:
            request: Parameters by diffusers' names, and `seed`.

        Raises:
            InvalidArgumentError: Naming the field and what was expected.
        """
        values = self.complete(request)
        known = self.inputs | {"seed"}
        for name in values:
            if name not in known:
                raise InvalidArgumentError(
                    name[:64], "unknown parameter", expected=f"one of {', '.join(sorted(known))}"
                )
        self._check_prompts(values)
        workflow = self.workflow_of(values)
        for name in values:
            if name not in workflow.inputs and name != "seed":
                raise InvalidArgumentError(name, f"not used by the workflow {workflow.name}")
        self._check_numbers(values)
        self._check_size(values)

    def _expected_inputs(self) -> str:
        return " or ".join(" and ".join(w.requires) for w in self.workflows)

    def _check_prompts(self, values: Mapping[str, Any]) -> None:
        limit = self.limits.max_prompt_bytes
        for name, value in values.items():
            if not isinstance(value, str):
                continue
            try:
                size = len(value.encode())
            except UnicodeEncodeError as error:
                raise InvalidArgumentError(name, "not valid UTF-8") from error
            if size > limit:
                raise InvalidArgumentError(
                    name, f"has {size} bytes", expected=f"at most {limit} bytes of UTF-8"
                )
            if name == "prompt" and not value.strip():
                raise InvalidArgumentError(name, "is empty", expected="some text")
        prompt = values.get("prompt")
        if prompt is not None and not isinstance(prompt, str):
            raise InvalidArgumentError("prompt", f"is {_kind(prompt)}", expected="a string")

    def _check_numbers(self, values: Mapping[str, Any]) -> None:
        limits = self.limits
        _check_int(values, "seed", 0, 2**64 - 1)
        _check_int(values, "num_inference_steps", 1, limits.max_num_inference_steps)
        _check_int(values, "num_images_per_prompt", 1, limits.max_num_images_per_prompt)
        _check_int(values, "num_videos_per_prompt", 1, limits.max_num_images_per_prompt)
        _check_int(values, "max_sequence_length", 1, self.max_sequence_length or 2**16)
        _check_int(values, "num_frames", 1, limits.max_num_frames)
        for name in values:
            if name.endswith("guidance_scale") or name.startswith("guidance_scale"):
                _check_float(values, name, 0.0, limits.max_guidance_scale)
        _check_float(values, "strength", 0.0, 1.0)
        _check_float(values, "fps", 1e-3, 1000.0)
        _check_float(values, "frame_rate", 1e-3, 1000.0)
        frames = values.get("num_frames")
        if frames is not None and (frames - 1) % self.frames_multiple:
            step = self.frames_multiple
            nearest = max(1, round((frames - 1) / step)) * step + 1
            raise InvalidArgumentError(
                "num_frames",
                f"is {frames}",
                expected=f"one more than a multiple of {step}, such as {nearest}",
            )

    def _check_size(self, values: Mapping[str, Any]) -> None:
        limits = self.limits
        for name in ("height", "width"):
            _check_int(values, name, 1, limits.max_side)
            value = values.get(name)
            if value is not None and value % self.size_multiple:
                raise InvalidArgumentError(
                    name, f"is {value}", expected=f"a multiple of {self.size_multiple}"
                )
        full = {**self.defaults, **values}
        pixels = 1
        for name in ("height", "width", "num_frames", "num_images_per_prompt"):
            value = full.get(name)
            pixels *= value if isinstance(value, int) else 1
        if pixels > limits.max_pixels:
            raise InvalidArgumentError(
                "height",
                f"{pixels} pixels in all",
                expected=f"height × width × frames × images of at most {limits.max_pixels}",
            )


def _kind(value: object) -> str:
    return f"of type {type(value).__name__}"


def _check_int(values: Mapping[str, Any], name: str, low: int, high: int) -> None:
    value = values.get(name)
    if value is None:
        return
    if type(value) is not int:
        raise InvalidArgumentError(name, f"is {_kind(value)}", expected="an integer")
    if not low <= value <= high:
        raise InvalidArgumentError(name, f"is {value}", expected=f"{low} to {high}")


def _check_float(values: Mapping[str, Any], name: str, low: float, high: float) -> None:
    value = values.get(name)
    if value is None:
        return
    if type(value) not in (int, float):
        raise InvalidArgumentError(name, f"is {_kind(value)}", expected="a number")
    if not math.isfinite(value) or not low <= value <= high:
        raise InvalidArgumentError(name, f"is {value}", expected=f"{low:g} to {high:g}")
