"""gRPC addresses: `host:port` or `unix:/path`."""

from __future__ import annotations

import ipaddress
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
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_address(address: str, field: str = "listen") -> None:
    """Raise `InvalidArgumentError` for `field` unless it is `host:port` or `unix:/path`."""
    if is_unix(address):
        path = address.removeprefix("unix:")
        # sockaddr_un holds 108 bytes with the final zero, see unix(7).
        if path.startswith("/") and len(os.fsencode(path)) < 108:
            return
        raise InvalidArgumentError(
            field, f"{address!r} is not usable", expected="unix:/path of at most 107 bytes"
        )
    host, separator, port = address.rpartition(":")
    if not (host and separator and port.isascii() and port.isdecimal() and int(port) < 65536):
        raise InvalidArgumentError(
            field, f"{address!r} is not an address", expected="host:port or unix:/path"
        )
