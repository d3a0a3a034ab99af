"""`python -m disagfusion_dit`: the front of a dit service."""

from __future__ import annotations

from disagfusion import termination

if __name__ == "__main__":
    termination.end_on_sigterm()
    # Only now, since it takes a while.
    from disagfusion.emulation.choice import make_service
    from disagfusion.pipeline.stages import Stage
    from disagfusion.stage.command import main

    main(Stage.DIT, "disagfusion_dit.engine:DitEngine", make_service)
