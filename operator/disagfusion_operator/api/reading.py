"""A DiffusionPipeline as the API server gives it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from disagfusion.errors import InvalidArgumentError
from disagfusion.scheduling.document import validate
from disagfusion_operator.api.base import API_VERSION, KIND, Part
from disagfusion_operator.api.pipeline import Spec


@dataclass(frozen=True, slots=True)
class Metadata:
    """What tells a pipeline from others.

    Attributes:
        namespace: In which it is.
        name: In its namespace.
        uid: Of this object; another one of the same name has another.
        generation: Counts changes of the specification.
        resource_version: Counts changes of anything.
        deletion_timestamp: When it was asked to go; empty where it was not.
        finalizers: Who has to agree before it goes.
        labels: As people set them.
        annotations: As people set them.
    """

    namespace: str
    name: str
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    deletion_timestamp: str = ""
    finalizers: tuple[str, ...] = ()
    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None


class _Envelope(Part):
    """A specification below its name, so that errors name it.

    Attributes:
        spec: The pipeline's.
    """

    spec: Spec


def read_metadata(manifest: Mapping[str, Any]) -> Metadata:
    """Return the metadata of an object of any kind."""
    found = manifest.get("metadata") or {}
    return Metadata(
        namespace=found.get("namespace", ""),
        name=found.get("name", ""),
        uid=found.get("uid", ""),
        generation=found.get("generation", 0),
        resource_version=found.get("resourceVersion", ""),
        deletion_timestamp=found.get("deletionTimestamp", ""),
        finalizers=tuple(found.get("finalizers") or ()),
        labels=found.get("labels") or {},
        annotations=found.get("annotations") or {},
    )


def read_pipeline(manifest: Mapping[str, Any]) -> tuple[Metadata, Spec]:
    """Read a pipeline.

    The API server has checked it against the definition; it is read as strictly here, since the
    definition in the cluster may be an older or a newer one.

    Raises:
        InvalidArgumentError: Naming the field as people write it, such as
            `spec.stages.dit.minReplicas`, and what was expected.
    """
    metadata = read_metadata(manifest)
    name = f"{metadata.namespace}/{metadata.name}" if metadata.namespace else metadata.name
    kind = (manifest.get("apiVersion", API_VERSION), manifest.get("kind", KIND))
    if kind != (API_VERSION, KIND):
        raise InvalidArgumentError(
            f"{name}: kind", " ".join(kind), expected=f"{API_VERSION} {KIND}"
        )
    envelope = validate(_Envelope, {"spec": manifest.get("spec") or {}}, name=name)
    return metadata, envelope.spec
