"""`python -m disagfusion_encoder`: the front of a encoder service."""

from __future__ import annotations

from disagfusion.pipeline.stages import Stage
from disagfusion.stage.app import main

if __name__ == "__main__":
    main(Stage.ENCODER, "disagfusion_encoder.engine:EncoderEngine")
