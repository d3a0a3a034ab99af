"""Which service a stage's process runs: the real one, or an emulated one."""

from __future__ import annotations

from disagfusion.pipeline.stages import Stage
from disagfusion.stage.app import StageService
from disagfusion.stage.devices import is_emulated
from disagfusion.stage.settings import StageSettings


def make_service(stage: Stage, engine: str, settings: StageSettings) -> StageService:
    """Return the service for a device.

    Args:
        stage: Which stage.
        engine: The class that computes it where the device is not emulated.
        settings: How it behaves.
    """
    if is_emulated(settings.device):
        # Nobody else needs what reads profiles.
        from disagfusion.emulation.service import EmulatedService

        return EmulatedService(stage, settings)
    return StageService(stage, engine, settings)
