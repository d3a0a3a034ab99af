"""How a stage loads and runs its components. Everything here is a feature of diffusers.

No torch in here: options are read by supervisors and sent to engines as JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from disagfusion.errors import InvalidArgumentError


class _Options(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class CompileOptions(_Options):
    """`torch.compile` of the models of a stage.

    Attributes:
        scope: "repeated_blocks" compiles only the blocks that repeat
            (`compile_repeated_blocks`: fast to compile), "model" the whole model.
        mode: torch's mode, such as "max-autotune"; None is torch's default.
        fullgraph: Fail where the graph would break.
        dynamic: Whether shapes may change without compiling again; None lets torch find out.
    """

    scope: Literal["model", "repeated_blocks"] = "repeated_blocks"
    mode: str | None = None
    fullgraph: bool = False
    dynamic: bool | None = None


class QuantizationOptions(_Options):
    """Quantization while loading, by diffusers' `PipelineQuantizationConfig`.

    Attributes:
        backend: "bitsandbytes_4bit" or "bitsandbytes_8bit", which need the package bitsandbytes;
            others where diffusers and transformers configure them alike, by plain values.
        kwargs: Arguments of the backend's configuration class.
        components: Which components; empty means all models of the stage.
    """

    backend: str
    kwargs: dict[str, Any] = Field(default_factory=dict)
    components: tuple[str, ...] = ()


class CacheOptions(_Options):
    """Caching between denoising steps, by diffusers' `enable_cache`. Changes the result.

    Attributes:
        kind: The name of the configuration class without "Config", in snake case:
            "first_block_cache", "pyramid_attention_broadcast", "faster_cache", …
        kwargs: Arguments of the configuration class, such as `{"threshold": 0.1}`.
    """

    kind: Literal[
        "faster_cache",
        "first_block_cache",
        "mag_cache",
        "pyramid_attention_broadcast",
        "sea_cache",
        "taylor_seer_cache",
        "text_kv_cache",
    ]
    kwargs: dict[str, Any] = Field(default_factory=dict)


class LoadOptions(_Options):
    """How one stage loads and runs.

    Attributes:
        dtype: dtype of the models' weights and of the computation.
        device: torch device: "cpu", "cuda", "cuda:1", "mps", "xpu".
        threads: Threads of CPU operations; None leaves torch's setting alone.
        attention_backend: As `set_attention_backend` takes it, such as "native" or "flash".
        compile: Compile the stage's models; needs a C compiler.
        vae_tiling: Decode and encode in tiles: less memory, slightly different pixels.
        vae_slicing: Decode and encode a batch one by one.
        quantization: Quantize while loading; needs the backend's package.
        cache: Cache between denoising steps.
        variant: Weight file variant, such as "fp16".
        revision: Revision of a hub repository.
        local_files_only: Never ask the hub.
        workflows: Serve only these workflows, so that only their components are loaded;
            empty means all that the model has the components for.
    """

    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    device: str = Field(default="cpu", pattern=r"^(cpu|mps|(cuda|xpu|hpu|npu)(:\d{1,3})?)$")
    threads: int | None = Field(default=None, ge=1, le=1024)
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

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> LoadOptions:
        """Build options from a mapping, as it comes from a command line or a JSON document.

        Raises:
            InvalidArgumentError: Naming the field that is unknown or has a wrong value.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"]) or "options"
            raise InvalidArgumentError(field, first["msg"]) from error
