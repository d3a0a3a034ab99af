"""Calls of clients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from disagfusion.rpc.errors import from_rpc_error


@contextmanager
def translated(target: str = "") -> Iterator[None]:
    """Turn what a call raises into exceptions of ours.

    Args:
        target: The address, for the message of a failed connection.

    Raises:
        DisagfusionError: The call failed.
    """
    try:
        yield
    except grpc.RpcError as error:
        raise from_rpc_error(error, target=target) from error
