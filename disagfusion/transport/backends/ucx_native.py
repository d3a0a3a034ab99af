"""The two calls of libucp that ucxx does not offer, and ucxx's import.

Sources: `ucp/api/ucp.h` of UCX 1.21: `ucp_ep_query`, `ucp_ep_attr_t`, `ucp_worker_destroy`.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from types import ModuleType
from typing import Any

_TRANSPORTS_FIELD = 1 << 3
_MOST_LANES = 64
_SHARED_MEMORY = frozenset({"posix", "sysv", "cma", "xpmem", "knem", "self"})


class _Entry(ctypes.Structure):
    _fields_ = (("transport", ctypes.c_char_p), ("device", ctypes.c_char_p))


class _Transports(ctypes.Structure):
    _fields_ = (
        ("entries", ctypes.POINTER(_Entry)),
        ("count", ctypes.c_uint),
        ("entry_size", ctypes.c_size_t),
    )


class _EndpointAttributes(ctypes.Structure):
    _fields_ = (
        ("mask", ctypes.c_uint64),
        ("name", ctypes.c_char * 32),
        # sockaddr_storage has 128 bytes.
        ("local", ctypes.c_char * 128),
        ("remote", ctypes.c_char * 128),
        ("transports", _Transports),
        ("user_data", ctypes.c_void_p),
    )


@cache
def library() -> ModuleType:
    """Return `ucxx.libucxx`, the objects of UCX without ucxx's own threads.

    Raises:
        ImportError: ucxx or UCX is missing or does not fit.
    """
    # ucxx sets variables that only a UCX with CUDA knows, and UCX would complain of them.
    os.environ.setdefault("UCX_WARN_UNUSED_ENV_VARS", "n")
    # A request that outlives its worker because the peer died is reported as a leak.
    os.environ.setdefault("UCX_LOG_LEVEL", "error")
    # The standard output is for results.
    os.environ.setdefault("UCX_LOG_FILE", "stderr")
    # A SIGHUP, which ends a terminal, would make UCX log every call from then on.
    os.environ.setdefault("UCX_DEBUG_SIGNO", "0")
    import ucxx

    module: ModuleType = ucxx.libucxx
    return module


@cache
def _ucp() -> ctypes.CDLL:
    library()
    ucp = ctypes.CDLL("libucp.so.0")
    ucp.ucp_ep_query.argtypes = (ctypes.c_void_p, ctypes.POINTER(_EndpointAttributes))
    ucp.ucp_ep_query.restype = ctypes.c_int
    ucp.ucp_worker_destroy.argtypes = (ctypes.c_void_p,)
    ucp.ucp_worker_destroy.restype = None
    return ucp


def transports(endpoint: int) -> tuple[str, ...]:
    """Return the names of UCX's transports in an endpoint's lanes, sorted.

    Args:
        endpoint: A `ucp_ep_h`.

    Raises:
        OSError: UCX does not tell.
    """
    entries = (_Entry * _MOST_LANES)()
    attributes = _EndpointAttributes(mask=_TRANSPORTS_FIELD)
    attributes.transports.entries = ctypes.cast(entries, ctypes.POINTER(_Entry))
    attributes.transports.count = _MOST_LANES
    attributes.transports.entry_size = ctypes.sizeof(_Entry)
    status = _ucp().ucp_ep_query(endpoint, ctypes.byref(attributes))
    if status:
        raise OSError(f"ucp_ep_query failed with status {status}")
    count = attributes.transports.count
    return tuple(sorted({entries[i].transport.decode() for i in range(count)}))


def label(names: tuple[str, ...]) -> str:
    """Return what to call a set of UCX's transports, such as "ucx/shm" or "ucx/rc_mlx5"."""
    if not names:
        return "ucx"
    if set(names) <= _SHARED_MEMORY:
        return "ucx/shm"
    return "ucx/" + "+".join(name for name in names if name not in _SHARED_MEMORY)


def destroy_worker(worker: Any, *dependents: Any) -> None:
    """End a worker with all that is under way on it, whatever state its peers are in.

    UCX lets go of all memory of the worker's requests and tells nobody. ucxx does not know, so its
    objects must never be finalised: their references are leaked, a few kilobytes.

    Args:
        worker: A `UCXWorker`.
        dependents: Its endpoints and requests.
    """
    handle = worker.handle
    for item in (worker, *dependents):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(item))
    _ucp().ucp_worker_destroy(handle)
