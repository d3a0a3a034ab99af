"""A network that is slower and less steady than the one there is, over any backend.

The kernel's own means (netem) need rights and a module that many machines lack. Here the receiving
side holds back the verification of what has arrived until it would have arrived over the shaped
link: its slot stays in the state FILLING and the acknowledgement leaves late, as on a slow
network. The shaped link is emulated, the bytes are not.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import math
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Protocol

from disagfusion.transport.api import (
    Delivery,
    Inbox,
    Message,
    MessageHeader,
    PeerAddress,
    PeerLostError,
    Transport,
    TransportError,
)
from disagfusion.transport.digest import Hold
from disagfusion.transport.testing.wrapper import TransportWrapper


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkShape:
    """How a link behaves.

    Attributes:
        latency: Seconds from one end to the other.
        bytes_per_second: Its bandwidth; messages wait for each other.
        jitter: Each time is multiplied by a factor between 1 - jitter and 1 + jitter; 0 to 1.
        tail: If not 0, each time is also multiplied by a factor with a Pareto distribution of
            this shape and the mean 1; the nearer to 1, the heavier its tail.
        stall_every: If not 0, the link stands still as often, in seconds.
        stall_seconds: For so long.
        loss: The probability that the connection breaks while a message is under way.
    """

    latency: float = 0.0
    bytes_per_second: float = math.inf
    jitter: float = 0.0
    tail: float = 0.0
    stall_every: float = 0.0
    stall_seconds: float = 0.0
    loss: float = 0.0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            ValueError: Naming the one that is wrong.
        """
        valid = {
            "latency": self.latency >= 0,
            "bytes_per_second": self.bytes_per_second > 0,
            "jitter": 0 <= self.jitter <= 1,
            "tail": self.tail == 0 or self.tail > 1,
            "stall_every": self.stall_every == 0 or self.stall_every > self.stall_seconds,
            "stall_seconds": self.stall_seconds >= 0,
            "loss": 0 <= self.loss <= 1,
        }
        wrong = [name for name, good in valid.items() if not good]
        if wrong:
            raise ValueError(f"a link's {wrong[0]} cannot be {getattr(self, wrong[0])}")


class ShapedLink:
    """When messages arrive over one link. No clock of its own.

    Args:
        shape: How it behaves.
        random: What happens by chance; the same seed gives the same link.
        opened: Since when there is the link, in seconds.
    """

    def __init__(self, shape: LinkShape, random: Random, opened: float) -> None:
        self._shape = shape
        self._random = random
        self._opened = opened
        self._free_at = opened

    def carry(self, nbytes: int, now: float) -> float:
        """Return when a message that is offered now will have arrived."""
        shape = self._shape
        factor = self._random.uniform(1 - shape.jitter, 1 + shape.jitter)
        if shape.tail:
            mean = shape.tail / (shape.tail - 1)
            factor *= self._random.paretovariate(shape.tail) / mean
        start = max(now, self._free_at)
        self._free_at = self._past_stalls(start, factor * nbytes / shape.bytes_per_second)
        return self._free_at + factor * shape.latency

    def breaks_at(self) -> float | None:
        """Return after which share of its time the next message is lost; None if it is not."""
        if self._random.random() >= self._shape.loss:
            return None
        return self._random.random()

    def _past_stalls(self, start: float, seconds: float) -> float:
        every, length = self._shape.stall_every, self._shape.stall_seconds
        if not every or not length:
            return start + seconds
        while True:
            number = max(1, math.floor((start - self._opened) / every))
            stall = self._opened + number * every
            if start >= stall + length:
                stall += every
            if start + seconds <= stall:
                return start + seconds
            seconds -= max(0.0, stall - start)
            start = stall + length


@dataclass(slots=True)
class _Arriving:
    memory: memoryview
    address: int
    began: float
    ends: float


class _HoldingInbox:
    """Passes everything on, and knows when each message under way will have arrived."""

    def __init__(self, inbox: Inbox, link: Callable[[str], ShapedLink]) -> None:
        self._inbox = inbox
        self._link = link
        self._arriving: dict[tuple[str, str], _Arriving] = {}

    def admit(self, header: MessageHeader) -> memoryview:
        memory = self._inbox.admit(header)
        if memory.nbytes:
            now = _now()
            ends = self._link(header.sender).carry(header.nbytes, now)
            arriving = _Arriving(memory, _address(memory), now, ends)
            self._arriving[header.sender, header.message_id] = arriving
        return memory

    def delivered(self, header: MessageHeader, seconds: float) -> None:
        self._arriving.pop((header.sender, header.message_id), None)
        self._inbox.delivered(header, seconds)

    def dropped(self, header: MessageHeader, reason: str) -> None:
        self._arriving.pop((header.sender, header.message_id), None)
        self._inbox.dropped(header, reason)

    async def hold(self, view: memoryview) -> None:
        """Wait until what is in this memory would have arrived; not at all for other memory."""
        if view.readonly or not view.nbytes:
            return
        end = _address(view) + view.nbytes
        for arriving in self._arriving.values():
            length = end - arriving.address
            if 0 < length <= arriving.memory.nbytes:
                share = length / arriving.memory.nbytes
                due = arriving.began + share * (arriving.ends - arriving.began)
                await asyncio.sleep(max(0.0, due - _now()))
                return


class MakeTransport(Protocol):
    """Makes the transport that is to be shaped."""

    def __call__(self, inbox: Inbox, hold: Hold) -> Transport:
        """Return a transport that has not been started, with this inbox, that holds like this."""


class ShapedTransport(TransportWrapper):
    """Wraps a transport: what others send to it comes over shaped links.

    Args:
        make: Makes the wrapped transport.
        inbox: The receiving side.
        shape: Of the links, one for each sender; what is lost is lost by the sending side, so
            its own shape says how often.
        seed: Of what happens by chance.
    """

    def __init__(
        self,
        make: MakeTransport,
        inbox: Inbox,
        shape: LinkShape,
        *,
        seed: int = 0,
    ) -> None:
        self._shape = shape
        self._seed = seed
        self._links: dict[str, ShapedLink] = {}
        self._holding = _HoldingInbox(inbox, self._link)
        super().__init__(make(self._holding, self._holding.hold))

    async def send(
        self,
        peer: PeerAddress,
        message: Message,
        *,
        timeout: float,  # noqa: ASYNC109  # as the interface has it
    ) -> Delivery:
        """Send; where the link breaks, the transfer is given up in its midst."""
        breaks_at = self._link(peer.incarnation).breaks_at()
        sending = asyncio.ensure_future(self._inner.send(peer, message, timeout=timeout))
        try:
            if breaks_at is not None:
                shape = self._shape
                whole = shape.latency + message.header.nbytes / shape.bytes_per_second
                await asyncio.wait([sending], timeout=breaks_at * whole)
                if not sending.done():
                    raise PeerLostError("the shaped link broke")
            return await sending
        finally:
            if not sending.done():
                sending.cancel()
                with contextlib.suppress(asyncio.CancelledError, TransportError):
                    await sending

    def _link(self, peer: str) -> ShapedLink:
        if peer not in self._links:
            # Incarnations are random: the order of appearance is what repeats.
            random = Random(self._seed * 1_000_003 + len(self._links))  # noqa: S311
            self._links[peer] = ShapedLink(self._shape, random, _now())
        return self._links[peer]


def _address(view: memoryview) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(view))


def _now() -> float:
    return asyncio.get_running_loop().time()
