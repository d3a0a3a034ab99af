"""The pipeline that the stages of these tests pretend to serve."""

from __future__ import annotations

from disagfusion.pipeline.spec import PipelineSpec, Workflow

STEPS = 3
_INPUTS = (
    *("prompt", "negative_prompt", "height", "width", "num_inference_steps", "guidance_scale"),
    *("num_images_per_prompt", "max_sequence_length"),
)

SPEC = PipelineSpec(
    family="test",
    class_name="TestPipeline",
    version="v1",
    output="image",
    workflows=(
        Workflow(name="text2image", requires={"prompt": True}, inputs=_INPUTS),
        Workflow(
            name="image2image", requires={"prompt": True, "image": True}, inputs=(*_INPUTS, "image")
        ),
    ),
    defaults={"height": 64, "width": 64, "num_inference_steps": STEPS},
    size_multiple=16,
)

MEDIA = bytes(range(256)) * 1200  # more than one chunk
