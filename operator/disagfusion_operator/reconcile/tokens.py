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

from disagfusion.errors import AlreadyExistsError, NotFoundError
from disagfusion.rpc.auth import KEY_PREFIX
from disagfusion.rpc.tls import TlsSettings
from disagfusion_operator.api.base import SecretKey
from disagfusion_operator.desired.gateway import KEYS_KEY, TOKEN_KEY
from disagfusion_operator.desired.inputs import Inputs, manifest
from disagfusion_operator.desired.names import internal_secret, labels
from disagfusion_operator.k8s.kinds import SECRET
from disagfusion_operator.k8s.port import Cluster, Object
from disagfusion_operator.scaling.view import Key

_KEPT_SECONDS = 300.0
_FILES = {"cert": "tls.crt", "key": "tls.key", "ca": "ca.crt"}


@dataclass(slots=True)
class _Known:
    uid: str
    value: str
    read: float


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

    async def key_of(self, key: Key, inputs: Inputs) -> str:
        """Return the key of a pipeline's internal port; its Secret is there afterwards.

        Raises:
            DisagfusionError: The API server does not give it.
        """
        known = self._keys.get(key)
        fresh = known is not None and self._clock() - known.read < _KEPT_SECONDS
        if known is not None and fresh and known.uid == inputs.uid:
            return known.value
        name = internal_secret(inputs.name)
        try:
            found = await self._cluster.get(SECRET, key.namespace, name)
        except NotFoundError:
            try:
                found = await self._cluster.replace(_secret(inputs, name))
            except AlreadyExistsError:
                found = await self._cluster.get(SECRET, key.namespace, name)
        value = base64.b64decode(found["data"][TOKEN_KEY]).decode()
        self._keys[key] = _Known(inputs.uid, value, self._clock())
        return value

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


def _secret(inputs: Inputs, name: str) -> Object:
    value = KEY_PREFIX + secrets.token_urlsafe(32)
    line = f"operator: sha256:{hashlib.sha256(value.encode()).hexdigest()}\n"
    data = {TOKEN_KEY: value, KEYS_KEY: line}
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in data.items()}
    return manifest(
        inputs, ("v1", "Secret"), name, labels(inputs.name, ""), type="Opaque", data=encoded
    )
