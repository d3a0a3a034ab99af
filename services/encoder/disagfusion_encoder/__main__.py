"""`python -m disagfusion_encoder`: the front of an encoder service."""

from __future__ import annotations

from disagfusion import termination

if __name__ == "__main__":
    termination.end_on_sigterm()
    # Only now, since it takes a while.
    from disagfusion.emulation.choice import make_service
    from disagfusion.pipeline.stages import Stage
    from disagfusion.stage.command import main

    main(Stage.ENCODER, "disagfusion_encoder.engine:EncoderEngine", make_service)
