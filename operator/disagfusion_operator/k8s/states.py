"""What objects of Kubernetes say of themselves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from disagfusion_operator.k8s.port import Object

IMAGE_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull")
"""Why a container waits whose image cannot be had."""
CONFIGURATION_REASONS = (
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
)
"""Why a container waits that cannot be made or begun as it is specified."""


def is_ready(pod: Object) -> bool:
    """Tell whether a pod takes work."""
    return condition(pod, "Ready").get("status") == "True" and not is_leaving(pod)


def is_leaving(found: Object) -> bool:
    """Tell whether an object has been asked to end."""
    return bool(found["metadata"].get("deletionTimestamp"))


def is_over(pod: Object) -> bool:
    """Tell whether a pod holds nothing any more."""
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def condition(found: Object, kind: str) -> Mapping[str, Any]:
    """Return a condition of an object; empty where it has none of that type."""
    conditions = found.get("status", {}).get("conditions") or ()
    return next((one for one in conditions if one.get("type") == kind), {})


def containers(pod: Object) -> Iterator[Mapping[str, Any]]:
    """Yield the statuses of a pod's containers, in the order in which they start."""
    status = pod.get("status", {})
    yield from status.get("initContainerStatuses") or ()
    yield from status.get("containerStatuses") or ()


def waiting_reason(container: Mapping[str, Any]) -> str:
    """Return why a container waits, by its status; empty where it does not."""
    return str(((container.get("state") or {}).get("waiting") or {}).get("reason", ""))


def seconds_of(text: str) -> float:
    """Return a time as Kubernetes writes it as Unix seconds."""
    return datetime.fromisoformat(text).timestamp()


def text_of(moment: float | datetime, *, precision: str = "seconds") -> str:
    """Return a time as Kubernetes writes it.

    Args:
        moment: Unix seconds, or a moment of UTC.
        precision: As `datetime.isoformat` names it: `microseconds` for a MicroTime.
    """
    if not isinstance(moment, datetime):
        moment = datetime.fromtimestamp(moment, UTC)
    return moment.isoformat(timespec=precision).replace("+00:00", "Z")
