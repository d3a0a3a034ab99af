"""UCX: shared memory within a machine, RDMA or TCP between machines.

What is said about a message goes over a socket, as with TCP; only payloads go through UCX. So a
dead peer is noticed at once, a stranger never reaches UCX's queues, and no more is in flight than
was admitted. Every connection has a UCX worker of its own at both ends, which ends with it: a
stuck peer takes nothing else along, and no request is cancelled and its memory used again.

Two modes, chosen by whether both ends see the same shared memory and processes: shared memory or
network. Both have UCX's handling of peer errors, without which it is not defined what a peer that
dies or is given up leaves behind.
"""

from __future__ import annotations

import hashlib
import ipaddress
import logging
import os
import secrets
import time
from dataclasses import dataclass
from typing import Any

from disagfusion.transport.address import StreamAddress
from disagfusion.transport.api import (
    PeerAddress,
    PeerLostError,
    RefusalReason,
    RefusedError,
    TransportError,
)
from disagfusion.transport.backends.connection import Connection
from disagfusion.transport.backends.dialed import Dialed
from disagfusion.transport.backends.link import Link
from disagfusion.transport.backends.stream import Introduce, StreamTransport
from disagfusion.transport.backends.ucx_driver import UcxDriver
from disagfusion.transport.backends.ucx_link import UcxLink
from disagfusion.transport.backends.ucx_native import label, library
from disagfusion.transport.frame import MAX_GREETING
from disagfusion.transport.wire import MalformedError, Reader, Writer

_SHARED, _NETWORK = b"s", b"n"
_OPTIONS = {
    # Without cma: a receiver that fetches from a sender that has gone crashes inside UCX.
    _SHARED: {
        "TLS": "posix,self",
        "POSIX_ERROR_HANDLING": "y",
        # Memory is there before the payload, so nothing is gained by asking for it.
        "RNDV_THRESH": "inf",
    },
    # Small segments, UCX's default, cost a factor of three with ucxx's other defaults.
    _NETWORK: {"TLS": "^shm", "TCP_TX_SEG_SIZE": "1m", "TCP_RX_SEG_SIZE": "1m"},
}


# Then shared memory is tried again with a peer with which it did not work.
_DISTANT_SECONDS = 600.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Greeting:
    """What a sender says before there is a link.

    Attributes:
        mode: Through shared memory or a network.
        locality: Where the sender is, see `_locality`.
        address: Of the sender's worker. UCX ends the process over one that it did not make itself;
            only a peer that was handed our token is listened to.
    """

    mode: bytes
    locality: bytes
    address: bytes

    def encode(self) -> bytes:
        """Return it as bytes."""
        writer = Writer()
        for value in (self.mode, self.locality, self.address):
            writer.blob(value)
        return writer.done()

    @classmethod
    def decode(cls, data: bytes) -> Greeting:
        """Return a greeting from bytes.

        Raises:
            MalformedError: They make no sense.
        """
        reader = Reader(data)
        greeting = cls(*(reader.blob(MAX_GREETING) for _ in range(3)))
        reader.end()
        if greeting.mode not in _OPTIONS or not greeting.address:
            raise MalformedError("unknown mode of UCX, or no address")
        return greeting


class UcxTransport(StreamTransport):
    """Payloads through UCX."""

    backend = "ucx"

    async def _open(self) -> None:
        try:
            self._api = library()
        except ImportError as error:
            raise TransportError(f"UCX cannot be loaded: {error}") from error
        shared = self._settings.ucx_shared_memory
        self._locality = _locality() if shared else secrets.token_bytes(16)
        self._contexts: dict[bytes, Any] = {}
        # Incarnations with which shared memory did not work, and until when they go without.
        self._distant: dict[str, float] = {}
        # Finds out now, not at the first message, whether UCX works here.
        self._context(_NETWORK)
        self._driver = UcxDriver()

    async def _shut(self) -> None:
        await self._driver.aclose()
        self._contexts.clear()

    def _extra(self) -> bytes:
        return self._locality

    async def _dial(self, peer: PeerAddress) -> Dialed:
        known = self._is_distant(peer.incarnation)
        try:
            return await super()._dial(peer)
        except PeerLostError:
            if known or peer.incarnation not in self._distant:
                raise
        return await super()._dial(peer)

    async def _link_out(
        self, connection: Connection, where: StreamAddress, incarnation: str, introduce: Introduce
    ) -> Link:
        near = where.extra == self._locality and not self._is_distant(incarnation)
        mode = _SHARED if near else _NETWORK
        try:
            return await self._make_link(mode, incarnation, introduce)
        except OSError as error:
            if near:
                # Too little of it, here or there, more likely than a peer that has just gone.
                logger.warning(
                    "no shared memory with a peer, going over the network",
                    extra={"peer": incarnation, "error": str(error)[:200]},
                )
                self._go_without(incarnation)
            raise

    async def _make_link(self, mode: bytes, incarnation: str, introduce: Introduce) -> Link:
        driver = self._driver
        worker = await driver.open(self._context(mode))
        try:
            own = await driver.call(lambda: worker.address)
            peer = await introduce(Greeting(mode, self._locality, own).encode())
            await driver.call(lambda: worker.connect(peer))
            name = await driver.call(lambda: worker.label)
        except BaseException:
            await driver.close(worker)
            raise
        failed = self._go_without if mode == _SHARED else self._return_to
        return UcxLink(driver, worker, name, self._digest, failed=lambda: failed(incarnation))

    async def _link_in(self, connection: Connection, greeting: bytes) -> tuple[Link, bytes]:
        sender = Greeting.decode(greeting)
        mode = sender.mode
        if mode == _SHARED and sender.locality != self._locality:
            raise RefusedError(RefusalReason.MALFORMED, "no shared memory with this sender")
        driver = self._driver
        worker = await driver.open(self._context(mode))
        try:
            # Left to itself UCX 1.21 makes this endpoint when the sender's first message comes, and
            # crashes in `ucp_ep_set_lanes_failed` if the sender has gone by then.
            await driver.call(lambda: worker.connect(sender.address))
            own = await driver.call(lambda: worker.address)
        except BaseException:
            await driver.close(worker)
            raise
        name = "ucx/shm" if mode == _SHARED else label(context_transports(self._context(mode)))
        return UcxLink(driver, worker, name, self._digest), own

    def _is_distant(self, incarnation: str) -> bool:
        now = time.monotonic()
        self._distant = {name: until for name, until in self._distant.items() if now < until}
        return incarnation in self._distant

    def _go_without(self, incarnation: str) -> None:
        self._distant[incarnation] = time.monotonic() + _DISTANT_SECONDS

    def _return_to(self, incarnation: str) -> None:
        self._distant.pop(incarnation, None)

    def _devices(self) -> dict[str, str]:
        """Leave the loopback out where peers are elsewhere: each container has its own.

        It would take half of the ports, and UCX may think that it leads to another container.
        """
        try:
            own = ipaddress.ip_address(self._settings.advertise or self._settings.host)
        except ValueError:
            return {}
        near = own.is_loopback or own.is_unspecified or "UCX_NET_DEVICES" in os.environ
        return {} if near else {"NET_DEVICES": "^lo"}

    def _context(self, mode: bytes) -> Any:
        if mode not in self._contexts:
            options = {**_OPTIONS[mode], **self._devices(), **self._settings.ucx_options}
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


def _locality() -> bytes:
    """Return what is the same for two processes only if they can share memory.

    One kernel is not enough: containers have processes, shared memory and users of their own.
    """
    facts = [str(os.getuid()), str(os.stat("/dev/shm").st_dev)]  # noqa: S108  # only looked at
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        facts.append(file.read().strip())
    facts += [os.readlink(f"/proc/self/ns/{name}") for name in ("pid", "ipc", "user", "mnt")]
    return hashlib.sha256("\n".join(facts).encode()).digest()[:16]
