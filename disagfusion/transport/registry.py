"""The backends by name."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from disagfusion.transport.api import Inbox, Transport, TransportError
from disagfusion.transport.digest import Digest, Hold, no_hold, xxh3
from disagfusion.transport.settings import Observer, TransportSettings


@dataclass(frozen=True, slots=True)
class Probe:
    """What a backend can do on this machine.

    Attributes:
        backend: Its name.
        available: Whether it can be used.
        detail: What there is, or what is missing and how to get it.
        transports: What may carry payloads, as the backend's library lists it.
    """

    backend: str
    available: bool
    detail: str
    transports: tuple[str, ...] = ()


class _Factory(Protocol):
    def __call__(
        self,
        inbox: Inbox,
        *,
        incarnation: str,
        settings: TransportSettings,
        observer: Observer | None,
        digest: Digest,
        hold: Hold,
    ) -> Transport: ...


def _tcp() -> _Factory:
    from disagfusion.transport.backends.tcp import TcpTransport

    return TcpTransport


def _inproc() -> _Factory:
    from disagfusion.transport.backends.inproc import InprocTransport

    return InprocTransport


def _ucx() -> _Factory:
    missing = _missing_ucx()
    if missing:
        raise TransportError(missing)
    from disagfusion.transport.backends.ucx import UcxTransport

    return UcxTransport


BACKENDS: Mapping[str, Callable[[], _Factory]] = {"ucx": _ucx, "tcp": _tcp, "inproc": _inproc}


def create(
    backend: str,
    inbox: Inbox,
    *,
    incarnation: str,
    settings: TransportSettings | None = None,
    observer: Observer | None = None,
    digest: Digest = xxh3,
    hold: Hold = no_hold,
) -> Transport:
    """Return a transport that has not been started.

    Args:
        backend: "ucx", "tcp" or "inproc".
        inbox: The receiving side.
        incarnation: Of this process, new each time it starts; at most 128 bytes.
        settings: Settings; the defaults listen on loopback.
        observer: Is told what the transport does.
        digest: Computes checksums, in any thread; another than xxh3_64 is for tests.
        hold: Awaited when a segment has come and before it counts; for tests.

    Raises:
        TransportError: There is no such backend, or something that it needs is missing; the
            message says what.
    """
    if backend not in BACKENDS:
        raise TransportError(f"no transport {backend!r}; there are {', '.join(BACKENDS)}")
    return BACKENDS[backend]()(
        inbox,
        incarnation=incarnation,
        settings=settings or TransportSettings(),
        observer=observer,
        digest=digest,
        hold=hold,
    )


def probe() -> tuple[Probe, ...]:
    """Find out what works here; takes up to some seconds.

    UCX is tried in a process of its own, which ends whatever UCX makes of this machine.
    """
    return (_probe_ucx(), _probe_tcp())


def _probe_tcp() -> Probe:
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5).close()
    except OSError as error:
        return Probe("tcp", False, f"no connection over loopback: {error}")
    return Probe("tcp", True, "connections over loopback work", ("tcp",))


def _probe_ucx() -> Probe:
    missing = _missing_ucx()
    if missing:
        return Probe("ucx", False, missing)
    command = [sys.executable, "-m", "disagfusion.transport.backends.ucx_probe"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        return Probe("ucx", False, "UCX did not start within 30 s")
    if done.returncode:
        last = (done.stderr.strip() or "no message").splitlines()[-1]
        return Probe("ucx", False, f"UCX does not start: {last}")
    version, *transports = done.stdout.split()
    return Probe("ucx", True, f"UCX {version}", tuple(transports))


def _missing_ucx() -> str:
    if importlib.util.find_spec("ucxx") is None:
        return "the package ucxx-cu13 is missing: pip install 'disagfusion[stage]'"
    return ""
