"""`python -m disagfusion_encoder`: the front of an encoder service."""

from __future__ import annotations

from disagfusion.emulation.choice import make_service
from disagfusion.pipeline.stages import Stage
from disagfusion.stage.app import main

if __name__ == "__main__":
    main(Stage.ENCODER, "disagfusion_encoder.engine:EncoderEngine", make_service)
