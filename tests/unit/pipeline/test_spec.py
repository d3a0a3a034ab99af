"""Requests are judged by data alone."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disagfusion.errors import InvalidArgumentError
from disagfusion.pipeline.options import LoadOptions
from disagfusion.pipeline.spec import Limits, PipelineSpec, Workflow
from disagfusion.pipeline.stages import Stage

COMMON = (
    "prompt",
    "negative_prompt",
    "height",
    "width",
    "num_frames",
    "num_inference_steps",
    "guidance_scale",
    "num_images_per_prompt",
    "max_sequence_length",
)
SPEC = PipelineSpec(
    family="flux",
    class_name="FluxPipeline",
    version="0123",
    output="image",
    workflows=(
        Workflow(name="text2image", requires={"prompt": True}, inputs=COMMON),
        Workflow(
            name="image2image",
            requires={"prompt": True, "image": True},
            inputs=(*COMMON, "image", "strength"),
        ),
        Workflow(
            name="one_frame", requires={"prompt": True, "num_frames": 1}, inputs=(*COMMON, "still")
        ),
    ),
    defaults={"height": 64, "width": 64, "num_inference_steps": 8},
    preset={"height": 64, "width": 64},
    size_multiple=16,
    frames_multiple=4,
    max_sequence_length=64,
)
GOOD: dict[str, Any] = {"prompt": "a seven", "seed": 1}


def test_good_requests_pass() -> None:
    SPEC.validate(GOOD)
    SPEC.validate({**GOOD, "height": 128, "width": 16, "guidance_scale": 3, "num_frames": 9})
    SPEC.validate({**GOOD, "image": object(), "strength": 0.5, "negative_prompt": ""})
    SPEC.validate({**GOOD, "seed": 2**64 - 1, "height": None})


@pytest.mark.parametrize(
    ("field", "change", "expected"),
    [
        ("height", {"height": 100}, "a multiple of 16"),
        ("width", {"width": -16}, "1 to 8192"),
        ("height", {"height": 0}, "1 to 8192"),
        ("width", {"width": 2**40}, "1 to 8192"),
        ("height", {"height": 64.0}, "an integer"),
        ("height", {"height": True}, "an integer"),
        ("num_inference_steps", {"num_inference_steps": -1}, "1 to 1000"),
        ("num_inference_steps", {"num_inference_steps": 0}, "1 to 1000"),
        ("num_inference_steps", {"num_inference_steps": 10**9}, "1 to 1000"),
        ("num_images_per_prompt", {"num_images_per_prompt": 17}, "1 to 16"),
        ("num_frames", {"num_frames": 8}, "one more than a multiple of 4, such as 9"),
        ("num_frames", {"num_frames": 2**20 + 1}, "1 to 1024"),
        ("prompt", {"prompt": ""}, "some text"),
        ("prompt", {"prompt": " \n"}, "some text"),
        ("prompt", {"prompt": None}, "prompt"),
        ("prompt", {"prompt": 7}, "a string"),
        ("prompt", {"prompt": "x" * 2**20}, "at most 32768 bytes"),
        ("negative_prompt", {"negative_prompt": "x" * 2**20}, "at most 32768 bytes"),
        ("prompt", {"prompt": "\ud800"}, ""),
        ("seed", {"seed": -1}, "0 to"),
        ("seed", {"seed": 2**64}, "0 to"),
        ("guidance_scale", {"guidance_scale": float("nan")}, "0 to 100"),
        ("guidance_scale", {"guidance_scale": float("inf")}, "0 to 100"),
        ("guidance_scale", {"guidance_scale": "3"}, "a number"),
        ("strength", {"strength": 1.5, "image": object()}, "0 to 1"),
        ("max_sequence_length", {"max_sequence_length": 65}, "1 to 64"),
        ("size", {"size": 3}, "one of "),
    ],
)
def test_bad_requests_name_the_field_and_what_was_expected(
    field: str, change: dict[str, Any], expected: str
) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        SPEC.validate({**GOOD, **change})
    assert caught.value.field == field
    assert expected in caught.value.expected


def test_too_many_pixels_in_all() -> None:
    small = SPEC.model_copy(update={"limits": Limits(max_pixels=64 * 64 * 2)})
    small.validate({**GOOD, "num_images_per_prompt": 2})
    with pytest.raises(InvalidArgumentError, match="pixels in all"):
        small.validate({**GOOD, "num_images_per_prompt": 3})


def test_a_parameter_of_another_workflow_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="not used by the workflow text2image"):
        SPEC.validate({**GOOD, "strength": 0.5})


def test_the_workflow_follows_from_what_is_given() -> None:
    assert SPEC.workflow_of(GOOD).name == "text2image"
    assert SPEC.workflow_of({**GOOD, "image": object()}).name == "image2image"
    assert SPEC.workflow_of({**GOOD, "num_frames": 1}).name == "one_frame"
    assert SPEC.workflow_of({**GOOD, "num_frames": 5}).name == "text2image"
    with pytest.raises(InvalidArgumentError, match="prompt"):
        SPEC.workflow_of({"image": object()})


def test_presets_fill_in_what_is_left_out() -> None:
    assert SPEC.complete({"height": 32, "width": None}) == {"height": 32, "width": 64}


def test_it_travels_as_json() -> None:
    assert PipelineSpec.from_json(SPEC.to_json()) == SPEC


@given(
    st.dictionaries(
        st.sampled_from([*COMMON, "image", "strength", "seed", "unknown"]),
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats()
        | st.text()
        | st.lists(st.integers())
        | st.binary(),
    )
)
def test_whatever_is_asked_the_only_error_is_ours(request_: dict[str, Any]) -> None:
    try:
        SPEC.validate(request_)
    except InvalidArgumentError as error:
        assert error.field  # noqa: PT017 - a good request raises nothing


def test_importing_the_package_imports_no_torch() -> None:
    code = (
        "import sys, disagfusion.pipeline, disagfusion.pipeline.families;"
        "print([m for m in ('torch', 'diffusers', 'numpy', 'grpc') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("dtype", {"dtype": "float31"}),
        ("device", {"device": "gpu"}),
        ("threads", {"threads": 0}),
        ("compile.scope", {"compile": {"scope": "everything"}}),
        ("cache.kind", {"cache": {"kind": "magic"}}),
        ("quantization.backend", {"quantization": {}}),
        ("tiling", {"tiling": True}),
    ],
)
def test_bad_options_name_the_field(field: str, values: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        LoadOptions.parse(values)
    assert caught.value.field == field


def test_options_travel_as_json() -> None:
    options = LoadOptions.parse({"device": "cuda:1", "dtype": "bfloat16", "vae_tiling": True})
    assert LoadOptions.model_validate_json(options.model_dump_json()) == options


def test_the_order_of_the_stages() -> None:
    assert [s.previous for s in Stage] == [None, Stage.ENCODER, Stage.DIT]
    assert [s.following for s in Stage] == [Stage.DIT, Stage.DECODER, None]
