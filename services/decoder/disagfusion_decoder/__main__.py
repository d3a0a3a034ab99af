"""`python -m disagfusion_decoder`: the front of a decoder service."""

from __future__ import annotations

from disagfusion import termination

if __name__ == "__main__":
    termination.end_on_sigterm()
    # Only now, since it takes a while.
    from disagfusion.emulation.choice import make_service
    from disagfusion.pipeline.stages import Stage
    from disagfusion.stage.command import main

    main(Stage.DECODER, "disagfusion_decoder.engine:DecoderEngine", make_service)
