"""Tensors from peer to peer.

`create` returns a transport by name; `disagfusion.transport.api` says what a transport is.
"""

from __future__ import annotations

from disagfusion.transport.registry import BACKENDS, Probe, create, probe
from disagfusion.transport.settings import Observer, TransportSettings

__all__ = ["BACKENDS", "Observer", "Probe", "TransportSettings", "create", "probe"]
