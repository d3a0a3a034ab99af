"""A diffusers model cut into three stages: encoder, DiT and decoder.

Importing this package imports neither torch nor diffusers; `stage_model`, `describe` and
`values` do. What a front or a gateway needs (`stages`, `spec`, `options`) is free of both.
"""

from disagfusion.pipeline.options import LoadOptions
from disagfusion.pipeline.spec import PipelineSpec
from disagfusion.pipeline.stages import Stage

__all__ = ["LoadOptions", "PipelineSpec", "Stage"]
