"""Which model is served, and how its parts are loaded."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from disagfusion.pipeline.options import CacheOptions, CompileOptions, QuantizationOptions
from disagfusion.scheduling.document import NO_TRUTH
from disagfusion_operator.api.base import (
    SET,
    Matches,
    ObjectName,
    Part,
    Quantity,
    Rule,
    SecretKey,
    Url,
)


class Hub(Part):
    """A repository of the model hub.

    Attributes:
        repository: Such as `black-forest-labs/FLUX.1-dev`.
        revision: Its commit: a branch may change, and then two pods might serve two models.
        token_secret: An access token, where the repository asks for one.
    """

    repository: Annotated[
        str,
        Field(max_length=200),
        Matches(
            r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$",
            "expected owner/name, such as black-forest-labs/FLUX.1-dev",
        ),
    ]
    revision: Annotated[
        str,
        Field(max_length=40),
        Matches(
            "^[0-9a-f]{40}$",
            "expected a commit of 40 hexadecimal digits: a branch or tag may change",
        ),
    ]
    token_secret: SecretKey | None = None


class Volume(Part):
    """A volume that holds the model in diffusers' layout; it is only read.

    Attributes:
        claim_name: PersistentVolumeClaim in the pipeline's namespace.
        path: Directory in it; the volume's root where empty.
    """

    claim_name: ObjectName
    path: Annotated[
        str,
        Field(max_length=1024),
        Matches(
            r"^([^/.][^/]*(/[^/.][^/]*)*)?$",
            "expected a directory below the volume's root, such as models/flux",
        ),
    ] = ""


class Store(Part):
    """An object store, or any other web server.

    Attributes:
        url: Where the index of the model's files is; the files stand beside it and are checked
            against it. Nothing but TLS protects the index itself: https://, unless the network is
            trusted.
    """

    url: Url


class Emulated(Part):
    """No model: stages take the time that the profile says. For trying out and for tests.

    Attributes:
        time_scale: Seconds that pass for one second of the profile.
        time_noise: A job's seconds vary by up to this share.
    """

    time_scale: Annotated[float, Field(gt=0, le=1000), NO_TRUTH] = 1.0
    time_noise: Annotated[float, Field(ge=0, lt=1), NO_TRUTH] = 0.0


class WeightsCache(Part):
    """Where a node keeps weights, so that each is downloaded once.

    Attributes:
        host_path: Directory on the node; one that lives with the pod where empty.
        size_limit: Bound on what one pod fetches, where the directory lives with the pod.
    """

    host_path: Annotated[
        str,
        Field(max_length=1024),
        Matches(
            r"^((/[^/:.][^/:]*)+)?$",
            "expected an absolute directory of the node, such as /var/lib/disagfusion",
        ),
    ] = ""
    size_limit: Quantity | None = None


class Model(Part):
    """Where the model comes from: exactly one source.

    Attributes:
        builtin: A model that is in the images: small digits, to try things out.
        hub: A repository of the model hub.
        volume: A volume with the model on it.
        store: An object store.
        emulated: No model at all; accelerators are emulated by the profile.
        cache: Where a node keeps weights.
    """

    RULES: ClassVar = (
        Rule(
            "[has(self.builtin), has(self.hub), has(self.volume), has(self.store),"
            " has(self.emulated)].filter(given, given).size() == 1",
            "expected exactly one of builtin, hub, volume, store and emulated",
        ),
    )

    builtin: Literal["digits"] | None = None
    hub: Hub | None = None
    volume: Volume | None = None
    store: Store | None = None
    emulated: Emulated | None = None
    cache: WeightsCache = Field(default_factory=WeightsCache)


class Options(Part):
    """How diffusers loads and runs the model; the names are its own.

    Attributes:
        attention_backend: As `set_attention_backend` takes it, such as "native" or "flash".
        compile: Compile the stages' models; needs images with a C compiler, which the released
            ones do not have. A stage without one says so and does not become ready.
        vae_tiling: Decode and encode in tiles: less memory, slightly different pixels.
        vae_slicing: Decode and encode a batch one by one.
        quantization: Quantize while loading; needs images with the backend's package, which the
            released ones do not have. A stage without it says so and does not become ready.
        cache: Cache between denoising steps.
        variant: Weight file variant, such as "fp16".
        workflows: Serve only these workflows of the model, and load only what they need.
    """

    attention_backend: Annotated[str, Field(max_length=63)] | None = None
    compile: CompileOptions | None = None
    vae_tiling: bool = False
    vae_slicing: bool = False
    quantization: QuantizationOptions | None = None
    cache: CacheOptions | None = None
    variant: Annotated[str, Field(max_length=63)] | None = None
    workflows: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=63)], ...], Field(max_length=16), SET
    ] = ()
