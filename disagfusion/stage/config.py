"""What an engine's process is told when it starts."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from disagfusion.pipeline.options import LoadOptions
from disagfusion.pipeline.stages import Stage


class EmulationConfig(BaseModel):
    """What an emulated accelerator is told.

    Attributes:
        profile: A `disagfusion.scheduling.profile.Profile` as JSON.
        pool: The one of its pools that the accelerator behaves like.
        time_scale: Seconds that it takes for one second of the profile.
        time_noise: Its seconds vary by up to this share, by job.
        monolith: Which kind of unsplit pipeline the worker is part of; None for a split one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    profile: str
    pool: str
    time_scale: float = 1.0
    time_noise: float = 0.0
    monolith: Literal["resident", "offloading"] | None = None


class EngineConfig(BaseModel):
    """What an engine's process is told when it starts; travels as JSON.

    Attributes:
        stage: Which stage it computes.
        engine: The class that does, a `StageEngine`, as "module:Class".
        model: A local directory or a hub id; empty for an emulated accelerator.
        options: How the model is loaded and run.
        emulation: For an emulated accelerator.
        prompt_cache_bytes: For the encoder.
        name: Of the worker, for the log.
        pipeline: For the log.
        environment: Set before anything is loaded; an engine that is forked has its parent's
            environment and not its front's.
        log_format: As the front's.
        log_level: As the front's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    stage: Stage
    engine: str = Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
    model: str
    options: LoadOptions
    emulation: EmulationConfig | None = None
    prompt_cache_bytes: int = 0
    name: str = ""
    pipeline: str = ""
    environment: dict[str, str] = Field(default_factory=dict)
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"


# What a front's environment may say to its engine beyond its settings.
_PREFIXES = ("CUDA_", "HIP_", "ROCR_", "ZE_", "NVIDIA_", "HF_", "TORCH", "PYTORCH_", "OTEL_")
_NAMES = ("DISAGFUSION_FAILPOINTS",)


def engine_environment(environment: dict[str, str]) -> dict[str, str]:
    """Return the part of a front's environment that concerns its engine."""
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(_PREFIXES) or name in _NAMES
    }
