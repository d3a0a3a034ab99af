"""`python -m disagfusion_dit`: the front of a dit service."""

from __future__ import annotations

from disagfusion.emulation.choice import make_service
from disagfusion.pipeline.stages import Stage
from disagfusion.stage.app import main

if __name__ == "__main__":
    main(Stage.DIT, "disagfusion_dit.engine:DitEngine", make_service)
