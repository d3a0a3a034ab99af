"""The front of an emulated worker: a stage service whose engine and links follow a profile."""

from __future__ import annotations

import asyncio

from disagfusion.emulation.accelerator import Accelerator
from disagfusion.emulation.pacing import PacedInbox
from disagfusion.emulation.profiles import check_pipeline, read_profile
from disagfusion.emulation.roles import role_of
from disagfusion.errors import InvalidArgumentError
from disagfusion.pipeline.stages import Stage
from disagfusion.stage.app import StageService
from disagfusion.stage.config import EmulationConfig, EngineConfig
from disagfusion.stage.devices import emulated_pool
from disagfusion.stage.settings import StageSettings
from disagfusion.telemetry.logging import get_logger
from disagfusion.transport import TransportSettings, create
from disagfusion.transport.api import Transport
from disagfusion.transport.settings import Observer

ENGINE = "disagfusion.emulation.engine:EmulatedEngine"

_log = get_logger(__name__)


class EmulatedService(StageService):
    """A stage service with an emulated accelerator.

    Args:
        stage: Which stage.
        settings: How it behaves.

    Raises:
        InvalidArgumentError: The profile, the device or the pipeline's name cannot be used.
    """

    def __init__(self, stage: Stage, settings: StageSettings) -> None:
        check_pipeline(settings.pipeline)
        pool = emulated_pool(settings.device)
        if settings.profile is None:
            raise InvalidArgumentError(
                "profile", f"{settings.device} needs one", expected="a YAML or JSON file"
            )
        profile = read_profile(settings.profile)
        self._accelerator = Accelerator(
            profile, pool, time_scale=settings.time_scale, time_noise=settings.time_noise
        )
        self._accelerator.check_names(role_of(stage, settings.monolith).stages)
        if "pool" not in settings.model_fields_set:
            settings = settings.model_copy(update={"pool": pool})
        super().__init__(stage, ENGINE, settings)
        _log.info("emulated accelerator", device=settings.device, time_scale=settings.time_scale)

    def engine_config(self, stage: Stage) -> EngineConfig:
        """See `StageService`; the profile must say what the stage costs here."""
        self._accelerator.check_names(role_of(stage, self._settings.monolith).stages)
        emulation = EmulationConfig(
            profile=self._accelerator.profile.model_dump_json(),
            pool=self._accelerator.pool,
            time_scale=self._accelerator.time_scale,
            time_noise=self._accelerator.time_noise,
            monolith=self._settings.monolith,
        )
        config = super().engine_config(stage)
        return config.model_copy(update={"emulation": emulation, "engine": ENGINE})

    @property
    def _has_room_for_two(self) -> bool:
        return self._accelerator.profile.pools[self._accelerator.pool].load_ahead

    def _make_transport(self, settings: TransportSettings, observer: Observer) -> Transport:
        clock = asyncio.get_running_loop().time
        inbox = PacedInbox(self.front, self._accelerator.link_bytes_per_second, clock)
        return create(
            self._settings.transport,
            inbox,
            incarnation=self._incarnation,
            settings=settings,
            observer=observer,
            hold=inbox.hold,
        )
