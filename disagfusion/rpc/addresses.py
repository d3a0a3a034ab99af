"""gRPC addresses: `host:port` or `unix:/path`."""

from __future__ import annotations

import os

from disagfusion.errors import InvalidArgumentError


def is_unix(address: str) -> bool:
    """Return whether an address is a unix socket's."""
    return address.startswith("unix:")


def is_local(address: str) -> bool:
    """Return whether an address can be reached from this machine only."""
    if is_unix(address):
        return True
    host = address.rpartition(":")[0].strip("[]")
    return host in ("localhost", "::1") or host.startswith("127.")


def check_address(address: str) -> None:
    """Raise `InvalidArgumentError` unless the address is `host:port` or `unix:/path`."""
    if is_unix(address):
        path = address.removeprefix("unix:")
        # sockaddr_un holds 108 bytes with the final zero, see unix(7).
        if path.startswith("/") and len(os.fsencode(path)) < 108:
            return
        raise InvalidArgumentError(
            "listen", f"{address!r} is not usable", expected="unix:/path of at most 107 bytes"
        )
    host, separator, port = address.rpartition(":")
    if not (host and separator and port.isascii() and port.isdecimal() and int(port) < 65536):
        raise InvalidArgumentError(
            "listen", f"{address!r} is not an address", expected="host:port or unix:/path"
        )
