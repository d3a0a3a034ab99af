"""A stage service's settings, from the environment."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, SettingsConfigDict

from disagfusion.errors import InvalidArgumentError
from disagfusion.pipeline.options import (
    CacheOptions,
    CompileOptions,
    LoadOptions,
    QuantizationOptions,
)
from disagfusion.pipeline.stages import Stage
from disagfusion.rpc.tls import TlsSettings
from disagfusion.stage.devices import is_emulated

PAGE = 4096


class StageThreads(BaseModel):
    """Threads of an engine's CPU operations, by stage."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    encoder: int = Field(ge=1, le=1024)
    dit: int = Field(ge=1, le=1024)
    decoder: int = Field(ge=1, le=1024)

    def of(self, stage: Stage) -> int:
        """Return a stage's."""
        return {
            Stage.ENCODER: self.encoder,
            Stage.DIT: self.dit,
            Stage.DECODER: self.decoder,
        }[stage]


class StageSettings(BaseSettings):
    """Every setting `x` is read from the environment variable `DISAGFUSION_X`.

    Attributes:
        listen: `host:port` or `unix:/path` for gRPC.
        name: The worker's name; unique among the workers of a gateway.
        device: torch's name, such as "cpu" or "cuda:0"; or "emulated:POOL" for one that behaves
            like an accelerator of that pool of `profile`.
        model: A local directory in diffusers' layout, or a hub id; none for an emulated device.
        profile: YAML or JSON file that says how fast an emulated device is.
        time_scale: Seconds that an emulated device takes for one second of the profile.
        time_noise: An emulated device's seconds vary by up to this share, by job.
        monolith: An emulated DiT takes the whole pipeline's time, an emulated encoder or decoder
            none: with all weights "resident", or "offloading" them; to compare with.
        pipeline: The name under which the model is served; of an emulated one it begins with
            "emulated".
        pool: What kind of accelerator this is, for scheduling; an emulated device's own by default.
        version_tag: Added to the version of model and software: of two workers with different
            ones none takes up what the other has left of a job.
        transport: What carries tensors.
        transport_host: Address on which the data plane listens.
        transport_port: Its port; 0 takes a free one.
        ucx_ports: UCX's own TCP ports, as "first-last"; any where empty. A connection takes one at
            each end for each network interface, but for the loopback where other stages are
            elsewhere.
        transport_advertise: Under which other stages reach it; `transport_host` where empty, which
            it cannot be where that is any address.
        dtype: Of weights and computation.
        threads: Threads of the engine's CPU operations.
        stage_threads: The same by stage, as a JSON object, for a worker that may take another
            stage; goes before `threads`.
        attention_backend: See `LoadOptions`.
        compile: See `LoadOptions`; JSON.
        vae_tiling: See `LoadOptions`.
        vae_slicing: See `LoadOptions`.
        quantization: See `LoadOptions`; JSON.
        cache: See `LoadOptions`; JSON.
        variant: See `LoadOptions`.
        revision: See `LoadOptions`.
        local_files_only: See `LoadOptions`.
        workflows: See `LoadOptions`; JSON list.
        slots: Inputs that may be here at a time, the one that is computed included.
        send_slots: Outputs on their way to one peer at a time; the others wait in the arena.
        handover: "async" hides transfers behind compute; "sync" waits for each, for comparison.
        arena_bytes: Shared memory for inputs and held outputs; half each. Untouched pages cost
            nothing.
        prompt_cache_bytes: The encoder's cache of its results; 0 turns it off.
        held_seconds: After which a finished output is forgotten whose gateway is away; while that
            is there, outputs stay until it releases them.
        input_seconds: An assignment's input must be there within this time.
        send_seconds: The longest that sending an output may take.
        engine_silence_seconds: An engine that says and does nothing for so long is replaced; one
            that computes without a word, after ten times as long.
        load_ahead: Whether a worker that is to change its stage has the next stage's engine load
            its weights while the present one finishes its jobs; needs memory for both. "auto" does
            it on "cpu" and on emulated devices whose pool says `load_ahead` in the profile, not on
            others: where memory runs out, it is the jobs that are lost.
        drain_seconds: How long draining waits for outputs to be released, once the last job has
            ended.
        fork_server: Unix socket of the process that forks engines; the front starts them
            itself where empty.
        tls_cert: With `tls_key` and `tls_ca`: mutual TLS, for gRPC and TCP.
        metrics_listen: `host:port` for Prometheus; empty for none.
        probe_listen: `host:port` that answers `grpc.health.v1` without TLS; empty for none. Without
            TLS `listen` does it.
        weights_report: What `python -m disagfusion.weights fetch --report` has written, for the
            metrics of the start.
        termination_log: Where it is said why the process ends or cannot load its model, if that
            file exists.
        ready_file: Written once the front listens.
    """

    model_config = SettingsConfigDict(
        env_prefix="DISAGFUSION_", extra="ignore", protected_namespaces=()
    )

    listen: str = "127.0.0.1:0"
    name: str = Field(default_factory=socket.gethostname, min_length=1, max_length=128)
    device: str = "cpu"
    # Judged after the device, and also where it is not given.
    model: str = Field(default="", validate_default=True)
    profile: Path | None = None
    time_scale: float = Field(default=1.0, gt=0, le=1000, allow_inf_nan=False)
    time_noise: float = Field(default=0.0, ge=0, lt=1)
    monolith: Literal["resident", "offloading"] | None = None
    pipeline: str = "default"
    pool: str = "default"
    version_tag: str = Field(default="", pattern=r"^[A-Za-z0-9._-]{0,63}$")
    transport: Literal["ucx", "tcp"] = "ucx"
    transport_host: str = "127.0.0.1"
    transport_port: int = Field(default=0, ge=0, le=65535)
    ucx_ports: str = Field(default="", pattern=r"^(\d{1,5}-\d{1,5})?$")
    transport_advertise: str = Field(default="", validate_default=True)
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    threads: int = Field(default=1, ge=1, le=1024)
    stage_threads: StageThreads | None = None
    attention_backend: str | None = None
    compile: CompileOptions | None = None
    vae_tiling: bool = False
    vae_slicing: bool = False
    quantization: QuantizationOptions | None = None
    cache: CacheOptions | None = None
    variant: str | None = None
    revision: str | None = None
    local_files_only: bool = False
    workflows: tuple[str, ...] = ()
    slots: int = Field(default=2, ge=1, le=64)
    send_slots: int = Field(default=2, ge=1, le=64)
    handover: Literal["async", "sync"] = "async"
    arena_bytes: int = Field(default=1 << 30, ge=1 << 20)
    prompt_cache_bytes: int = Field(default=64 << 20, ge=0)
    held_seconds: float = Field(default=900.0, gt=0)
    input_seconds: float = Field(default=60.0, gt=0)
    send_seconds: float = Field(default=60.0, gt=0)
    engine_silence_seconds: float = Field(default=60.0, gt=0)
    load_ahead: Literal["auto", "on", "off"] = "auto"
    drain_seconds: float = Field(default=25.0, ge=0)
    fork_server: str = ""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_ca: Path | None = None
    tls_server_name: str = ""
    metrics_listen: str = "127.0.0.1:0"
    probe_listen: str = ""
    weights_report: Path | None = None
    termination_log: Path = Path("/dev/termination-log")
    ready_file: Path | None = None
    log_format: Literal["json", "console"] = "json"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @field_validator(
        *("tls_cert", "tls_key", "tls_ca", "ready_file", "weights_report", "profile", "monolith"),
        *("attention_backend", "variant", "revision"),
        mode="before",
    )
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("model")
    @classmethod
    def _needed(cls, value: str, info: ValidationInfo) -> str:
        if not value and not is_emulated(info.data.get("device", "")):
            raise PydanticCustomError("missing", "Field required")
        return value

    @field_validator("transport_advertise")
    @classmethod
    def _leads_here(cls, value: str, info: ValidationInfo) -> str:
        host = info.data.get("transport_host", "")
        if not value and host in ("0.0.0.0", "::", "[::]", ""):  # noqa: S104
            raise PydanticCustomError(
                "missing",
                "must be the address under which other stages reach this one where "
                "DISAGFUSION_TRANSPORT_HOST is any",
            )
        return value

    @property
    def tls(self) -> TlsSettings | None:
        """The three files of mutual TLS, or None.

        Raises:
            InvalidArgumentError: Only some of them are given.
        """
        files = {"tls_cert": self.tls_cert, "tls_key": self.tls_key, "tls_ca": self.tls_ca}
        if not any(files.values()):
            return None
        for field, path in files.items():
            if path is None:
                raise InvalidArgumentError(field, "is missing", expected="all three TLS files")
        assert self.tls_cert
        assert self.tls_key
        assert self.tls_ca
        return TlsSettings(
            cert=self.tls_cert, key=self.tls_key, ca=self.tls_ca, server_name=self.tls_server_name
        )

    @property
    def slot_bytes(self) -> int:
        """The largest input that fits a slot."""
        return self.arena_bytes // 2 // self.slots // PAGE * PAGE

    @property
    def held_bytes(self) -> int:
        """The memory of held outputs."""
        return (self.arena_bytes - self.slots * self.slot_bytes) // PAGE * PAGE

    def load_options(self) -> LoadOptions:
        """Return how the engine loads its part of the model.

        Raises:
            InvalidArgumentError: Naming the option that is wrong.
        """
        given = {name: getattr(self, name) for name in LoadOptions.model_fields}
        if is_emulated(self.device):
            del given["device"]
        return LoadOptions.parse(given)
