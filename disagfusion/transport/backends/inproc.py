"""Transports within one event loop: a copy from the sender's memory to the receiver's."""

from __future__ import annotations

import asyncio
import secrets
from typing import ClassVar

from disagfusion.transport.api import (
    Delivery,
    Inbox,
    Message,
    PeerAddress,
    PeerLostError,
    RefusedError,
    Transport,
    TransportError,
)
from disagfusion.transport.digest import Digest, Digester, Hold, no_hold, xxh3
from disagfusion.transport.frame import Kind, Offer, decode_offer, decode_refusal
from disagfusion.transport.inbound import Receiver
from disagfusion.transport.outbound import Outgoing
from disagfusion.transport.session import Ledger
from disagfusion.transport.settings import NullObserver, Observer, TransportSettings


class InprocTransport(Transport):
    """The same decisions as over a network, without the network.

    Args:
        inbox: The receiving side.
        incarnation: Ours.
        settings: Settings.
        observer: Is told what happens.
        digest: Computes checksums; for tests.
        hold: Awaited when a segment has come and before it counts; for tests.
    """

    backend = "inproc"
    _open: ClassVar[dict[bytes, InprocTransport]] = {}

    def __init__(
        self,
        inbox: Inbox,
        *,
        incarnation: str,
        settings: TransportSettings,
        observer: Observer | None = None,
        digest: Digest = xxh3,
        hold: Hold = no_hold,
    ) -> None:
        self._inbox = inbox
        self._incarnation = incarnation
        self._settings = settings
        self._observer: Observer = observer or NullObserver()
        self._digester = Digester(digest)
        self._hold = hold
        self._ledger = Ledger()
        self._key = secrets.token_bytes(16)
        self._under_way: set[asyncio.Task[Delivery]] = set()

    @property
    def address(self) -> PeerAddress:
        """Where others send to."""
        return PeerAddress(self.backend, self._incarnation, self._key)

    async def start(self) -> None:
        """Open for senders."""
        self._open[self._key] = self

    async def aclose(self) -> None:
        """Give up what is under way in both directions."""
        self._open.pop(self._key, None)
        for task in self._under_way:
            task.cancel()
        if self._under_way:
            await asyncio.wait(list(self._under_way))
        await self._digester.aclose()

    async def send(
        self,
        peer: PeerAddress,
        message: Message,
        *,
        timeout: float,  # noqa: ASYNC109  # as the interface has it
    ) -> Delivery:
        """Hand a message over and wait for the acknowledgement."""
        if peer.backend != self.backend:
            raise TransportError(f"{self.backend} cannot reach a peer over {peer.backend}")
        other = self._open.get(peer.data)
        if other is None or other.address != peer or self._key not in self._open:
            self._observer.sent(self.backend, "lost", message.header.nbytes, 0.0)
            raise PeerLostError("there is no such peer in this process")
        task = asyncio.ensure_future(self._send(other, message, timeout))
        self._enter(task)
        other._enter(task)  # noqa: SLF001  # another object of this class
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise PeerLostError("one of the transports was closed") from None
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise

    def _enter(self, task: asyncio.Task[Delivery]) -> None:
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def _send(self, other: InprocTransport, message: Message, seconds: float) -> Delivery:
        loop = asyncio.get_running_loop()
        started = loop.time()
        nbytes, outcome = message.header.nbytes, "lost"
        try:
            async with asyncio.timeout(seconds):
                await self._converse(other, message, seconds)
            outcome = "delivered"
            return Delivery(loop.time() - started, nbytes, self.backend)
        except TimeoutError as error:
            raise PeerLostError(f"not acknowledged within {seconds:g} s") from error
        except RefusedError as error:
            outcome = error.reason.value
            raise
        finally:
            self._observer.sent(self.backend, outcome, nbytes, loop.time() - started)

    async def _converse(self, other: InprocTransport, message: Message, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        size = self._settings.segment_bytes
        outgoing = Outgoing(message, stream=1, segment_bytes=size, seconds=seconds)
        receiver = other._receiver(self._incarnation)
        # Through the codec, so that what a network would refuse is refused here too.
        offer: Offer = decode_offer(outgoing.offer.body)
        try:
            outgoing.answered(receiver.offered(1, offer, loop.time()))
            digests = []
            for index, (source, target) in enumerate(
                zip(outgoing.segments, receiver.views, strict=True)
            ):
                target[:] = source
                digests.append(await self._digester(source))
                digest = await other._digester(target)
                await other._hold(target)
                receiver.segment(index, digest, loop.time())
            outgoing.sent(digests)
            answer = receiver.announced(tuple(digests), loop.time())
            if answer is None:
                raise PeerLostError("the receiver did not answer")
            if answer.kind is Kind.NACK:
                raise RefusedError(*decode_refusal(answer.body))
            outgoing.answered(answer)
        finally:
            receiver.lost("the sender gave up", loop.time())

    def _receiver(self, sender: str) -> Receiver:
        return Receiver(
            self._inbox,
            self._ledger,
            sender=sender,
            observer=self._observer,
            transport=self.backend,
            max_bytes=self._settings.max_message_bytes,
            max_seconds=self._settings.transfer_seconds,
        )
