"""What the operator asks of an API server."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
"""A Kubernetes object as JSON has it."""

OPERATOR = "disagfusion-operator"
"""Field manager of everything but replicas."""
BALANCER = "disagfusion-balancer"
"""Field manager of replicas, and of the stage of pods that change it."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of objects.

    Attributes:
        api_version: Such as `apps/v1`.
        kind: Such as `Deployment`.
        plural: As URLs have it.
        namespaced: Whether objects are in a namespace.
    """

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True


class Cluster(ABC):
    """An API server.

    Every method raises `UnavailableError` where the server cannot be reached or asks for patience,
    `NotFoundError` where the object is not there, `AbortedError` on a conflict, and
    `PermissionDeniedError` and `InvalidArgumentError` where it refuses.
    """

    @abstractmethod
    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """Return an object."""

    @abstractmethod
    def list(
        self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> AsyncIterator[Object]:
        """Return all objects of a kind one by one, of all namespaces where none is given."""

    @abstractmethod
    async def apply(self, manifest: Object, *, force: bool = True) -> Object:
        """Apply on the server, as `OPERATOR`, taking over fields that others have.

        Without `force`, `AbortedError` where another has given a field another value. With
        `metadata.uid` only the object that has it is changed, and none is made. With
        `metadata.resourceVersion` only one that is still as it was then is changed; one that is not
        there is made.
        """

    @abstractmethod
    async def replace(self, manifest: Object) -> Object:
        """Write an object as a whole, if nobody has since its `resourceVersion` was read.

        Without a `resourceVersion` it is made; `AlreadyExistsError` where it is there.
        """

    @abstractmethod
    async def apply_status(self, manifest: Object) -> Object:
        """Apply the status subresource on the server, as `OPERATOR`."""

    @abstractmethod
    async def scale(self, namespace: str, name: str, replicas: int) -> None:
        """Set a Deployment's replicas through its scale subresource, as `BALANCER`."""

    @abstractmethod
    async def annotate(
        self, kind: Kind, namespace: str, name: str, annotations: Mapping[str, str | None]
    ) -> None:
        """Set annotations, or take away those that are None."""

    @abstractmethod
    async def relabel(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        labels: Mapping[str, str],
        annotations: Mapping[str, str | None],
    ) -> Object:
        """Set labels, and annotations or take away those that are None, at once, as `BALANCER`."""

    @abstractmethod
    async def set_finalizers(
        self, kind: Kind, namespace: str, name: str, finalizers: Sequence[str], *, version: str
    ) -> None:
        """Set who has to agree before an object goes, if its `resourceVersion` is still this.

        Whoever wrote them: applying takes away only what nobody else has applied.
        """

    @abstractmethod
    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str = "") -> None:
        """Delete an object, if it is still the one with that uid; it may be gone already.

        What belongs to it goes after it, in the background.
        """

    @abstractmethod
    async def record(
        self, about: Object, *, warning: bool, reason: str, message: str, action: str
    ) -> None:
        """Record an event about an object."""
