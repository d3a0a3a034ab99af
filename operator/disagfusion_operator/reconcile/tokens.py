"""The key of a pipeline's internal port, and the certificates it may need."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from disagfusion.errors import (
    AbortedError,
    AlreadyExistsError,
    FailedPreconditionError,
    NotFoundError,
)
from disagfusion.rpc.auth import KEY_PREFIX
from disagfusion.rpc.tls import TlsSettings
from disagfusion_operator.api.base import KIND, SecretKey
from disagfusion_operator.desired.gateway import KEYS_KEY, TOKEN_KEY
from disagfusion_operator.desired.inputs import Inputs, manifest
from disagfusion_operator.desired.names import internal_secret, labels
from disagfusion_operator.k8s.kinds import SECRET
from disagfusion_operator.k8s.port import Cluster, Object
from disagfusion_operator.scaling.view import Key

_KEPT_SECONDS = 300.0
_DOUBTED_SECONDS = 15.0
"""The same of a key that a gateway does not know, or waits for."""
_FILES = {"cert": "tls.crt", "key": "tls.key", "ca": "ca.crt"}


@dataclass(slots=True)
class _Known:
    uid: str
    value: str
    read: float
    doubted: bool = False


class Tokens:
    """Reads, and where there are none makes, the keys of internal ports.

    Nothing here is listed or watched: the operator need not be allowed to read all Secrets.

    Args:
        cluster: Where they are.
        clock: Seconds that only grow.
    """

    def __init__(self, cluster: Cluster, clock: Callable[[], float]) -> None:
        self._cluster = cluster
        self._clock = clock
        self._keys: dict[Key, _Known] = {}
        self._values: dict[tuple[Key, str, str], tuple[float, str]] = {}
        self._files: dict[tuple[Key, str], tuple[float, TlsSettings]] = {}
        self._directory: tempfile.TemporaryDirectory[str] | None = None

    async def key_of(self, key: Key, inputs: Inputs, *, doubted: bool = False) -> str:
        """Return the key of a pipeline's internal port; its Secret is there afterwards.

        Args:
            key: The pipeline.
            inputs: What it is made of.
            doubted: Whether something speaks for it that the Secret is not there any more.

        Raises:
            AbortedError: The Secret is that of a pipeline that is gone, and goes after it.
            FailedPreconditionError: Somebody has changed the Secret: it is of no use.
            DisagfusionError: The API server does not give it.
        """
        known = self._keys.get(key)
        if known is not None and known.uid == inputs.uid:
            kept = _DOUBTED_SECONDS if doubted or known.doubted else _KEPT_SECONDS
            if self._clock() - known.read < kept:
                return known.value
        name = internal_secret(inputs.name)
        try:
            found = await self._cluster.get(SECRET, key.namespace, name)
        except NotFoundError:
            try:
                found = await self._cluster.replace(_secret(inputs, name))
            except AlreadyExistsError:
                found = await self._cluster.get(SECRET, key.namespace, name)
        if _is_of_another(found, inputs.uid):
            # What gateways would mount now is gone in a moment.
            raise AbortedError(
                f"the Secret {name} goes with the pipeline of this name that was here before",
                reason="NAMESAKE_GOES",
            )
        value = _token_of(found)
        self._keys[key] = _Known(inputs.uid, value, self._clock())
        return value

    def doubt(self, key: Key) -> None:
        """Take note that a gateway does not know the key: the Secret may be another by now."""
        if (known := self._keys.get(key)) is not None:
            known.doubted = True

    async def value(self, key: Key, secret: SecretKey) -> str:
        """Return a value of a Secret that people name in a pipeline.

        Raises:
            NotFoundError: There is none.
            DisagfusionError: The API server does not give it.
        """
        place = (key, secret.name, secret.key)
        known = self._values.get(place)
        if known is not None and self._clock() - known[0] < _KEPT_SECONDS:
            return known[1]
        found = await self._cluster.get(SECRET, key.namespace, secret.name)
        if secret.key not in (found.get("data") or {}):
            raise NotFoundError(f"the Secret {secret.name} has no key {secret.key}")
        value = base64.b64decode(found["data"][secret.key]).decode().strip()
        self._values[place] = self._clock(), value
        return value

    async def certificates(self, key: Key, inputs: Inputs) -> TlsSettings | None:
        """Return the certificates that a pipeline's processes know each other by, as files.

        Raises:
            NotFoundError: The Secret or a part of it is not there.
            DisagfusionError: The API server does not give it.
        """
        tls = inputs.spec.transport.tls
        if tls is None:
            return None
        known = self._files.get((key, tls.secret_name))
        if known is not None and self._clock() - known[0] < _KEPT_SECONDS:
            return known[1]
        found = await self._cluster.get(SECRET, key.namespace, tls.secret_name)
        directory = self._place(key)
        for name in _FILES.values():
            if name not in (found.get("data") or {}):
                raise NotFoundError(f"the Secret {tls.secret_name} has no key {name}")
            path = directory / name
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(base64.b64decode(found["data"][name]))
        paths = {field: directory / name for field, name in _FILES.items()}
        settings = TlsSettings(**paths, server_name=tls.server_name)
        self._files[key, tls.secret_name] = self._clock(), settings
        return settings

    def forget(self, key: Key) -> None:
        """Forget what belongs to a pipeline."""
        self._keys.pop(key, None)
        for place in [one for one in self._files if one[0] == key]:
            del self._files[place]
        for value in [one for one in self._values if one[0] == key]:
            del self._values[value]

    def close(self) -> None:
        """Remove all files."""
        if self._directory is not None:
            self._directory.cleanup()

    def _place(self, key: Key) -> Path:
        if self._directory is None:
            self._directory = tempfile.TemporaryDirectory(prefix="disagfusion-operator-")
        path = Path(self._directory.name) / key.namespace / key.name
        path.mkdir(parents=True, exist_ok=True)
        return path


def _is_of_another(found: Object, uid: str) -> bool:
    """Tell whether a Secret belongs to another pipeline."""
    owners = found["metadata"].get("ownerReferences") or ()
    pipelines = {one.get("uid") for one in owners if one.get("kind") == KIND}
    return bool(pipelines) and uid not in pipelines


def _token_of(found: Object) -> str:
    """Return the key that a Secret has, if it also has what gateways know it by."""
    data = found.get("data") or {}
    try:
        value = base64.b64decode(data[TOKEN_KEY]).decode()
        known = base64.b64decode(data[KEYS_KEY]).decode()
    except (KeyError, ValueError):
        value = known = ""
    if not value or _hash(value) not in known:
        raise FailedPreconditionError(
            f"somebody has changed the Secret {found['metadata']['name']}: delete it, and it is"
            " made anew",
            reason="SECRET_CHANGED",
        )
    return value


def _hash(value: str) -> str:
    return f"sha256:{hashlib.sha256(value.encode()).hexdigest()}"


def _secret(inputs: Inputs, name: str) -> Object:
    value = KEY_PREFIX + secrets.token_urlsafe(32)
    line = f"operator: {_hash(value)}\n"
    data = {TOKEN_KEY: value, KEYS_KEY: line}
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}
    return manifest(
        inputs, ("v1", "Secret"), name, labels(inputs.name, ""), type="Opaque", data=encoded
    )
