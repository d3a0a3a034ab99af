"""`python -m disagfusion_decoder`: the front of a decoder service."""

from __future__ import annotations

from disagfusion.emulation.choice import make_service
from disagfusion.pipeline.stages import Stage
from disagfusion.stage.app import main

if __name__ == "__main__":
    main(Stage.DECODER, "disagfusion_decoder.engine:DecoderEngine", make_service)
