"""The decoder's engine: latents to pixels, and pixels to files."""

from __future__ import annotations

import hashlib

import numpy as np

from disagfusion.errors import InternalError
from disagfusion.stage.payload import Payload
from disagfusion.stage.request import output_format, request_values
from disagfusion.stage.stage_engine import NonFiniteError, Result, StageEngine, Task
from disagfusion.v1 import generation_pb2
from disagfusion_decoder.media import MediaFormat, encode_outputs

_FORMATS = {
    generation_pb2.OUTPUT_FORMAT_PNG: MediaFormat.PNG,
    generation_pb2.OUTPUT_FORMAT_JPEG: MediaFormat.JPEG,
    generation_pb2.OUTPUT_FORMAT_WEBP: MediaFormat.WEBP,
    generation_pb2.OUTPUT_FORMAT_MP4: MediaFormat.MP4,
}
# diffusers' own default when it writes a video.
_FPS = 10.0


class DecoderEngine(StageEngine):
    """Decodes latents and encodes what comes out as pictures or videos."""

    def run(self, task: Task) -> Result:
        """Decode and encode."""
        request = self.model.spec.complete(request_values(task.generation))
        spec = self.model.spec
        chosen = output_format(task.generation.output_format, spec.output)
        try:
            # A NaN shows when pixels become integers, which is where numpy would only warn.
            with np.errstate(invalid="raise"):
                outputs = self.compute(task, request)
        except FloatingPointError as error:
            raise NonFiniteError("the decoded pixels are not finite") from error
        rate = request.get("fps") or request.get("frame_rate") or spec.defaults.get("fps") or _FPS
        if outputs.get("images") is None and outputs.get("videos") is None:
            raise InternalError(f"the pipeline returned {', '.join(outputs) or 'nothing'}")
        files = encode_outputs(outputs, _FORMATS[chosen], fps=float(rate))
        media = tuple(
            generation_pb2.Output(
                index=index,
                content_type=file.content_type,
                size_bytes=len(file.content),
                height=file.height,
                width=file.width,
                num_frames=file.num_frames,
                sha256=hashlib.sha256(file.content).hexdigest(),
            )
            for index, file in enumerate(files)
        )
        return Result(Payload.of_files([file.content for file in files]), media)
