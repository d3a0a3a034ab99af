"""API keys and the tenants they belong to.

A key is 256 random bits, so one SHA-256 is as hard to turn back as any slow hash would be. The key
file holds the hashes, one `tenant: sha256:HEX` per line; a tenant may have several; `#` begins a
comment. It is read again whenever it changes.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast

import grpc

from disagfusion.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    UnauthenticatedError,
)
from disagfusion.rpc.addresses import is_local
from disagfusion.rpc.handlers import Handler, HandlerDetails, guarded
from disagfusion.telemetry.logging import get_logger

DEFAULT_TENANT = "default"
"""Whose jobs are all where there are no API keys."""

KEY_PREFIX = "dfk_"

_LINE = re.compile(r"(?P<tenant>[A-Za-z0-9][A-Za-z0-9._-]{0,62}): *sha256:(?P<digest>[0-9a-f]{64})")
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
# Health must answer to probes, which have no key.
_OPEN_METHODS = ("/grpc.health.v1.Health/",)

_tenant: ContextVar[str] = ContextVar("tenant", default=DEFAULT_TENANT)
_log = get_logger(__name__)


def current_tenant() -> str:
    """Return the tenant of the call that is being served."""
    return _tenant.get()


class KeyFile:
    """The hashed API keys of a file.

    Args:
        path: The file.

    Raises:
        InvalidArgumentError: The file cannot be read or a line is wrong.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._version = _file_version(path)
        self._keys = _read_keys(path)

    def tenant_of(self, key: str) -> str | None:
        """Return whose key it is, or None where it is nobody's."""
        self._refresh()
        digest = _digest(key)
        found = None
        # Every line is compared, so that the time tells nothing about which one fits.
        for known, tenant in self._keys:
            if hmac.compare_digest(known, digest):
                found = tenant
        return found

    def _refresh(self) -> None:
        version = _file_version(self._path)
        if version == self._version:
            return
        self._version = version
        try:
            self._keys = _read_keys(self._path)
        except InvalidArgumentError as error:
            _log.error("API keys not read again, the old ones stay", problem=error.message)
        else:
            _log.info("API keys read again", keys=len(self._keys))


def create_key(path: Path, tenant: str) -> str:
    """Add a new key for a tenant to a key file, which is created where there is none.

    Returns:
        The key, which is stored nowhere.

    Raises:
        InvalidArgumentError: The tenant's name is not usable, or the file cannot be written.
    """
    if not _TENANT.fullmatch(tenant):
        raise InvalidArgumentError(
            "tenant", f"{tenant[:80]!r} is not usable",
            expected="1 to 63 letters, digits, dots, dashes or underscores",
        )  # fmt: skip
    key = KEY_PREFIX + secrets.token_urlsafe(32)
    try:
        old = path.read_text() if path.exists() else ""
        separator = "" if not old or old.endswith("\n") else "\n"
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(f"{old}{separator}{tenant}: sha256:{_digest(key)}\n")
        os.replace(temporary, path)
    except OSError as error:
        raise InvalidArgumentError(
            "path", f"cannot write {path}: {error.strerror}", expected="a file that can be written"
        ) from error
    return key


class AuthInterceptor(grpc.aio.ServerInterceptor):
    """Lets calls with a known API key pass, and tells handlers the tenant (`current_tenant`).

    Health is open; everything else, reflection included, needs `authorization: Bearer KEY`.
    """

    def __init__(self, keys: KeyFile) -> None:
        self._keys = keys

    async def intercept_service(self, continuation: Any, details: HandlerDetails) -> Handler:
        """Check the key of the call."""
        handler = await continuation(details)
        if handler is None or details.method.startswith(_OPEN_METHODS):
            return cast(Handler, handler)
        header = dict(details.invocation_metadata or ()).get("authorization", "")

        @asynccontextmanager
        async def guard(context: Any, _request: object) -> AsyncIterator[None]:
            # Each call runs in a task of its own: what is set here ends with it.
            _tenant.set(self._tenant_of(header))
            yield

        return guarded(handler, guard)

    def _tenant_of(self, header: str | bytes) -> str:
        text = header if isinstance(header, str) else ""
        scheme, _, key = text.partition(" ")
        if not text:
            raise UnauthenticatedError(
                "no API key: send authorization: Bearer KEY", reason="API_KEY_MISSING"
            )
        tenant = self._keys.tenant_of(key.strip()) if scheme.lower() == "bearer" else None
        if tenant is None:
            raise UnauthenticatedError("the API key is not known", reason="API_KEY_UNKNOWN")
        return tenant


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def _file_version(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read_keys(path: Path) -> list[tuple[str, str]]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise InvalidArgumentError(
            "api_keys", f"cannot read {path}: {reason}", expected="a key file"
        ) from error
    keys = []
    for number, line in enumerate(lines, 1):
        text = line.partition("#")[0].strip()
        if not text:
            continue
        match = _LINE.fullmatch(text)
        if match is None:
            raise InvalidArgumentError(
                "api_keys", f"line {number} of {path}", expected="tenant: sha256:HEX"
            )
        keys.append((match["digest"], match["tenant"]))
    return keys


def require_keys_unless_local(listen: str, keys: KeyFile | None) -> None:
    """Refuse to open a port to other machines when nobody has to show a key.

    Raises:
        FailedPreconditionError: There are no keys and the address is not local.
    """
    if keys is None and not is_local(listen):
        raise FailedPreconditionError(
            f"refusing to listen on {listen} without API keys: set DISAGFUSION_API_KEYS, or listen "
            "on a loopback address or a unix socket",
            reason="API_KEYS_REQUIRED",
        )
