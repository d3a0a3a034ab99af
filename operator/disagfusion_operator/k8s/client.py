"""The port over `kubernetes.aio`: plain JSON in and out, deadlines, and the project's errors."""

from __future__ import annotations

import asyncio
import json
import os
import random
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, cast
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import client as kubernetes_client
from kubernetes.aio import config as kubernetes_config

from disagfusion.errors import (
    AbortedError,
    AlreadyExistsError,
    DisagfusionError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
)
from disagfusion_operator.k8s.kinds import DEPLOYMENT, EVENT, kind_of
from disagfusion_operator.k8s.port import BALANCER, OPERATOR, Cluster, Kind, Object
from disagfusion_operator.k8s.states import text_of

_SECONDS = 10.0
_TRIES = 3
_PAGE = 100
"""Objects of a list that are in memory at a time: they stay as large as they were at most."""
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"
_AUTH = "BearerToken"


class KubernetesCluster(Cluster):
    """An API server over HTTP.

    Args:
        api: The library's client, with the server's address and credentials.
        observe: Told of every call: its verb, its resource, its HTTP status (0: no answer).
        seconds: That one try of a call may take.
    """

    def __init__(
        self,
        api: Any,
        observe: Callable[[str, str, int], None] = lambda verb, resource, status: None,
        *,
        seconds: float = _SECONDS,
    ) -> None:
        self._api = api
        self._observe = observe
        self._seconds = seconds

    @classmethod
    async def connect(
        cls, observe: Callable[[str, str, int], None] = lambda verb, resource, status: None
    ) -> KubernetesCluster:
        """Return the cluster that this process runs in, or that of `KUBECONFIG` where it is set.

        Raises:
            UnavailableError: There is neither.
        """
        configuration = kubernetes_client.Configuration()
        try:
            if "KUBECONFIG" not in os.environ and "KUBERNETES_SERVICE_HOST" in os.environ:
                kubernetes_config.load_incluster_config(  # type: ignore[no-untyped-call]
                    client_configuration=configuration
                )
            else:
                await kubernetes_config.load_kube_config(  # type: ignore[no-untyped-call]
                    client_configuration=configuration
                )
        except kubernetes_config.ConfigException as error:
            raise UnavailableError(
                f"no cluster to talk to: {error}", reason="NO_CLUSTER"
            ) from error
        # Retries are our own: the library's would not know the deadline.
        configuration.retries = None
        # As kopf has it: a proxy is the kubeconfig's. Two threads a call would ask the environment.
        configuration.client_session_kwargs = {"trust_env": False}
        return cls(kubernetes_client.ApiClient(configuration), observe)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._api.close()

    async def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """See `Cluster`."""
        return await self._call("GET", kind, namespace, name)

    async def list(
        self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> AsyncIterator[Object]:
        """See `Cluster`. An empty value stands for: the label is there."""
        chosen = [f"{key}={value}" if value else key for key, value in (labels or {}).items()]
        query = {"limit": str(_PAGE), "labelSelector": ",".join(chosen)}
        while True:
            answer = await self._call("GET", kind, namespace, query=query)
            for one in answer["items"]:
                # Items of a list do not say what they are.
                one["apiVersion"], one["kind"] = kind.api_version, kind.kind
                yield one
            if not (more := answer["metadata"].get("continue")):
                return
            query["continue"] = more

    async def apply(self, manifest: Object, *, force: bool = True) -> Object:
        """See `Cluster`."""
        return await self._apply(manifest, OPERATOR, force=force)

    async def replace(self, manifest: Object) -> Object:
        """See `Cluster`."""
        kind, metadata = kind_of(manifest), manifest["metadata"]
        place = metadata.get("namespace", ""), metadata["name"]
        query = {"fieldManager": OPERATOR}
        if metadata.get("resourceVersion"):
            return await self._call("PUT", kind, *place, body=manifest, query=query)
        return await self._call("POST", kind, place[0], body=manifest, query=query)

    async def apply_status(self, manifest: Object) -> Object:
        """See `Cluster`."""
        return await self._apply(manifest, OPERATOR, "status")

    async def scale(self, namespace: str, name: str, replicas: int) -> None:
        """See `Cluster`."""
        scale = {
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": {"namespace": namespace, "name": name},
            "spec": {"replicas": replicas},
        }
        # Applied, and not updated: so it is the balancer's also where the number stays the same.
        await self._apply(scale, BALANCER, "scale", kind=DEPLOYMENT)

    async def annotate(
        self, kind: Kind, namespace: str, name: str, annotations: Mapping[str, str | None]
    ) -> None:
        """See `Cluster`."""
        await self._merge(kind, namespace, name, {"annotations": dict(annotations)})

    async def relabel(
        self,
        kind: Kind,
        namespace: str,
        name: str,
        labels: Mapping[str, str],
        annotations: Mapping[str, str | None],
    ) -> Object:
        """See `Cluster`."""
        metadata = {"labels": dict(labels), "annotations": dict(annotations)}
        return await self._merge(kind, namespace, name, metadata, BALANCER)

    async def set_finalizers(
        self, kind: Kind, namespace: str, name: str, finalizers: Sequence[str], *, version: str
    ) -> None:
        """See `Cluster`."""
        metadata = {"finalizers": [*finalizers], "resourceVersion": version}
        await self._merge(kind, namespace, name, metadata)

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str = "") -> None:
        """See `Cluster`."""
        options: Object = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
        }
        if uid:
            options["preconditions"] = {"uid": uid}
        try:
            await self._call("DELETE", kind, namespace, name, body=options)
        except NotFoundError:
            return
        except AbortedError:
            if not uid:
                raise  # with a uid it says that another one has taken the name

    async def record(
        self, about: Object, *, warning: bool, reason: str, message: str, action: str
    ) -> None:
        """See `Cluster`."""
        metadata = about["metadata"]
        namespace = metadata.get("namespace", "default")
        now = datetime.now(UTC)
        event = {
            "apiVersion": EVENT.api_version,
            "kind": EVENT.kind,
            "metadata": {
                "namespace": namespace,
                "name": f"{metadata['name'][:200]}.{secrets.token_hex(8)}",
            },
            "involvedObject": {
                "apiVersion": about["apiVersion"],
                "kind": about["kind"],
                "namespace": namespace,
                "name": metadata["name"],
                "uid": metadata.get("uid", ""),
            },
            "type": "Warning" if warning else "Normal",
            "reason": reason[:128],
            "message": message[:1024],
            "action": action[:128],
            "eventTime": text_of(now, precision="microseconds"),
            "firstTimestamp": text_of(now),
            "lastTimestamp": text_of(now),
            "count": 1,
            "source": {"component": OPERATOR},
            "reportingComponent": OPERATOR,
            "reportingInstance": OPERATOR,
        }
        await self._call("POST", EVENT, namespace, body=event)

    async def _merge(
        self, kind: Kind, namespace: str, name: str, metadata: Object, manager: str = OPERATOR
    ) -> Object:
        body, query = {"metadata": metadata}, {"fieldManager": manager}
        return await self._call(
            "PATCH", kind, namespace, name, body=body, query=query, content_type=_MERGE
        )

    async def _apply(
        self,
        manifest: Object,
        manager: str,
        subresource: str = "",
        kind: Kind | None = None,
        *,
        force: bool = True,
    ) -> Object:
        metadata = manifest["metadata"]
        return await self._call(
            "PATCH",
            kind or kind_of(manifest),
            metadata.get("namespace", ""),
            metadata["name"],
            subresource,
            body=manifest,
            query={"fieldManager": manager, "force": str(force).lower()},
            content_type=_APPLY,
        )

    async def _call(
        self,
        method: str,
        kind: Kind,
        namespace: str,
        name: str = "",
        subresource: str = "",
        *,
        body: Object | None = None,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Object:
        """Make a call; try again where that is safe and likely to help."""
        path = _path(kind, namespace, name, subresource)
        if given := {key: value for key, value in (query or {}).items() if value}:
            path += f"?{urlencode(given)}"
        # What is sent twice must not happen twice.
        tries = 1 if method == "POST" else _TRIES
        for left in reversed(range(tries)):
            try:
                return await self._try(method, kind, path, body, content_type)
            except UnavailableError as error:
                if not left:
                    raise
                patience = random.uniform(0.1, 0.5) * (tries - left)  # noqa: S311 - no secret
                await asyncio.sleep(max(patience, min(error.retry_after or 0.0, 5.0)))
        raise AssertionError("a try returns or raises")

    async def _try(
        self, method: str, kind: Kind, path: str, body: Object | None, content_type: str
    ) -> Object:
        headers = {"Accept": "application/json", "Content-Type": content_type}
        await self._api.update_params_for_auth(headers, [], [_AUTH], path, method, body)
        status = 0
        try:
            answer = await self._api.rest_client.request(
                method,
                self._api.configuration.host + path,
                headers=headers,
                body=body,
                _request_timeout=aiohttp.ClientTimeout(total=self._seconds),
            )
            status = answer.status
            data = await answer.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            what = str(error) or type(error).__name__
            raise UnavailableError(f"the API server does not answer: {what}") from error
        finally:
            self._observe(method.lower(), kind.plural, status)
        if status >= 400:
            raise _error(status, data, answer.headers.get("Retry-After"), path)
        return cast(Object, json.loads(data)) if data else {}


def _path(kind: Kind, namespace: str, name: str, subresource: str) -> str:
    group = "/api/v1" if kind.api_version == "v1" else f"/apis/{kind.api_version}"
    parts = [group]
    if kind.namespaced and namespace:
        parts.append(f"namespaces/{quote(namespace)}")
    parts.append(kind.plural)
    if name:
        parts.append(quote(name))
    if subresource:
        parts.append(subresource)
    return "/".join(parts)


def _error(status: int, data: bytes, retry_after: str | None, path: str) -> DisagfusionError:
    """Return what an answer of the API server means."""
    try:
        told = json.loads(data)
    except ValueError:
        told = {}
    message = told.get("message") or f"the API server answered {status}"
    metadata = {"status": str(status), "path": path.partition("?")[0]}
    if status == 404:
        return NotFoundError(message, metadata=metadata)
    if status == 409:
        if told.get("reason") == "AlreadyExists":
            return AlreadyExistsError(message, metadata=metadata)
        return AbortedError(message, metadata=metadata)
    if status in (401, 403):
        if "exceeded quota" in message:
            return ResourceExhaustedError(message, reason="QUOTA_EXCEEDED", metadata=metadata)
        return PermissionDeniedError(message, metadata=metadata)
    if status == 429 or status >= 500:
        seconds = float(retry_after) if retry_after and retry_after.isdigit() else None
        return UnavailableError(message, retry_after=seconds, metadata=metadata)
    causes = (told.get("details") or {}).get("causes") or [{}]
    return InvalidArgumentError(causes[0].get("field") or "object", message, metadata=metadata)
