"""`python -m disagfusion_decoder`: the front of a decoder service."""

from __future__ import annotations

from disagfusion.pipeline.stages import Stage
from disagfusion.stage.app import main

if __name__ == "__main__":
    main(Stage.DECODER, "disagfusion_decoder.engine:DecoderEngine")
