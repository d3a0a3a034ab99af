"""UCX: shared memory within a machine, RDMA or TCP between machines.

What is said about a message goes over a socket, as with TCP; only payloads go through UCX. So a
dead peer is noticed at once, a stranger never reaches UCX's queues, and no more is in flight than
was admitted. Every connection has a UCX worker of its own at both ends, which ends with it: a
stuck peer takes nothing else along, and no request is cancelled and its memory used again.

Two modes, chosen by whether both ends see the same shared memory and processes:

- shared memory, without UCX's handling of peer errors, which it does not support. UCX only gets
  transports that cannot fail by themselves.
- network, with UCX's handling of peer errors; without it a broken connection ends the process.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from disagfusion.transport.address import StreamAddress
from disagfusion.transport.api import RefusalReason, RefusedError, TransportError
from disagfusion.transport.backends.connection import Connection
from disagfusion.transport.backends.link import Link
from disagfusion.transport.backends.stream import StreamTransport
from disagfusion.transport.backends.ucx_native import label, library
from disagfusion.transport.backends.ucx_worker import UcxWorker
from disagfusion.transport.wire import MalformedError

_SHARED, _NETWORK = b"s", b"n"
_OPTIONS = {
    # The receiver fetches, so a stopped sender that goes on later writes to nobody's memory.
    # Small messages go in one piece; a rendezvous costs them two more turns of both processes.
    _SHARED: {"TLS": "posix,cma,self", "RNDV_SCHEME": "get_zcopy", "RNDV_THRESH": "65536"},
    # Small segments, UCX's default, cost a factor of three with ucxx's other defaults.
    _NETWORK: {"TLS": "^shm", "TCP_TX_SEG_SIZE": "256k", "TCP_RX_SEG_SIZE": "256k"},
}
# Segments under way at the same time. Through shared memory one: when a sender dies the fetch of
# its segment fails in good order, but UCX 1.21 crashes over another that was announced as well.
_WINDOW = {_SHARED: 1, _NETWORK: 4}


class UcxLink(Link):
    """The payloads of one connection, through a UCX worker.

    Args:
        worker: The worker; the link owns it.
        name: What carries the payload.
        window: Segments under way at the same time.
        failed: Called when UCX cannot send the first payload.
    """

    inline = False

    def __init__(
        self,
        worker: UcxWorker,
        name: str,
        *,
        window: int,
        failed: Callable[[], None] = lambda: None,
    ) -> None:
        self._worker = worker
        self._window = window
        self._name = name
        self._failed = failed
        self._proven = False
        self._stream = 0
        self._views: Sequence[memoryview] = ()
        self._expected: dict[int, asyncio.Future[None]] = {}

    @property
    def name(self) -> str:
        """What carries the payload."""
        return self._name

    async def send(self, stream: int, segments: Sequence[memoryview]) -> None:
        """Send all segments, a few at a time."""
        under_way: list[Awaitable[None]] = []
        try:
            for index, segment in enumerate(segments):
                if len(under_way) == self._window:
                    await under_way.pop(0)
                under_way.append(self._worker.send(segment, _tag(stream, index)))
            for sending in under_way:
                await sending
        except OSError:
            if not self._proven:
                self._failed()
            raise
        self._proven = True

    def expect(self, stream: int, views: Sequence[memoryview]) -> None:
        """Post the first segments."""
        self._stream, self._views = stream, views
        self._expected = {}
        for index in range(min(self._window, len(views))):
            self._post(index)

    async def arrival(self, index: int) -> None:
        """Return when a segment is there; they are to be waited for in their order."""
        await self._expected.pop(index)
        if index + self._window < len(self._views):
            self._post(index + self._window)

    async def aclose(self) -> None:
        """End the worker; UCX touches no memory any more."""
        await self._worker.aclose()
        self._views, self._expected = (), {}

    def _post(self, index: int) -> None:
        tag = _tag(self._stream, index)
        self._expected[index] = self._worker.receive(self._views[index], tag)


class UcxTransport(StreamTransport):
    """Payloads through UCX."""

    backend = "ucx"

    async def _open(self) -> None:
        try:
            self._api = library()
        except ImportError as error:
            raise TransportError(f"UCX cannot be loaded: {error}") from error
        self._locality = _locality()
        self._contexts: dict[bytes, Any] = {}
        # Incarnations that seemed to share memory and do not.
        self._distant: set[str] = set()
        # Finds out now, not at the first message, whether UCX works here.
        self._context(_NETWORK)

    async def _shut(self) -> None:
        self._contexts.clear()

    def _extra(self) -> bytes:
        return self._locality

    def _greeting(self, where: StreamAddress, incarnation: str) -> bytes:
        near = where.extra == self._locality and incarnation not in self._distant
        return (_SHARED if near else _NETWORK) + self._locality

    async def _link_out(
        self, connection: Connection, where: StreamAddress, incarnation: str, welcome: bytes
    ) -> Link:
        mode = self._greeting(where, incarnation)[:1]
        worker = UcxWorker(self._context(mode))
        try:
            worker.connect(welcome, robust=mode == _NETWORK)
            name = worker.label
        except BaseException:
            await worker.aclose()
            raise
        failed = self._distant.add if mode == _SHARED else self._distant.discard
        return UcxLink(worker, name, window=_WINDOW[mode], failed=lambda: failed(incarnation))

    async def _link_in(self, connection: Connection, greeting: bytes) -> tuple[Link, bytes]:
        mode, locality = greeting[:1], greeting[1:]
        if mode not in _OPTIONS:
            raise MalformedError("unknown mode of UCX")
        if mode == _SHARED and locality != self._locality:
            raise RefusedError(RefusalReason.MALFORMED, "no shared memory with this sender")
        worker = UcxWorker(self._context(mode))
        name = "ucx/shm" if mode == _SHARED else label(context_transports(self._context(mode)))
        return UcxLink(worker, name, window=_WINDOW[mode]), worker.address

    def _context(self, mode: bytes) -> Any:
        if mode not in self._contexts:
            options = {**_OPTIONS[mode], **self._settings.ucx_options}
            if mode == _SHARED:
                # The choice of network transports is not meant for shared memory.
                options["TLS"] = _OPTIONS[mode]["TLS"]
            try:
                self._contexts[mode] = self._api.UCXContext(options)
            except self._api.UCXError as error:
                raise TransportError(f"UCX does not start with {options}: {error}") from error
        return self._contexts[mode]


def context_transports(context: Any) -> tuple[str, ...]:
    """Return the names of UCX's transports that a context may use, sorted."""
    # Lines such as "#      resource 0  :  md 0  dev 0  flags -- tcp/lo".
    lines = [line for line in context.info.splitlines() if "resource" in line and "/" in line]
    return tuple(sorted({line.split()[-1].split("/")[0] for line in lines}))


def _tag(stream: int, index: int) -> int:
    return stream << 32 | index


def _locality() -> bytes:
    """Return what is the same for two processes only if they can share memory.

    One kernel is not enough: containers have processes, shared memory and users of their own.
    """
    facts = [str(os.getuid()), str(os.stat("/dev/shm").st_dev)]  # noqa: S108  # only looked at
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        facts.append(file.read().strip())
    facts += [os.readlink(f"/proc/self/ns/{name}") for name in ("pid", "ipc", "user", "mnt")]
    return hashlib.sha256("\n".join(facts).encode()).digest()[:16]
