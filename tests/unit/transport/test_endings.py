"""Both ends of a connection let go of memory only when the carrier has."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Sequence
from typing import Any

import pytest

from disagfusion.transport import TransportSettings
from disagfusion.transport.api import PeerLostError
from disagfusion.transport.backends.accepted import Accepted
from disagfusion.transport.backends.channel import SocketChannel
from disagfusion.transport.backends.connection import Connection
from disagfusion.transport.backends.dialed import Dialed
from disagfusion.transport.backends.link import Digests, Link
from disagfusion.transport.digest import Digester, no_hold
from disagfusion.transport.frame import Frame, Kind
from disagfusion.transport.inbound import Receiver
from disagfusion.transport.outbound import Outgoing
from disagfusion.transport.session import Ledger
from disagfusion.transport.settings import NullObserver
from disagfusion.transport.testing import MemoryInbox, make_message

PAYLOAD = b"x" * 1000
SETTINGS = TransportSettings(eager_bytes=0)


class SlowLink(Link):
    """A carrier that never comes to an end, and that takes its time to give up."""

    inline = False
    name = "slow"

    def __init__(self) -> None:
        self.closing = asyncio.Event()
        self.may_close = asyncio.Event()

    async def send(self, stream: int, segments: Sequence[memoryview]) -> Digests:
        await asyncio.Event().wait()
        return ()

    def eager(
        self, stream: int, segments: Sequence[memoryview]
    ) -> tuple[Sequence[Frame | memoryview], Digests]:
        raise NotImplementedError

    async def sent(self) -> None:
        await asyncio.Event().wait()

    def receive(self, stream: int, views: Sequence[memoryview]) -> Awaitable[Digests]:
        return asyncio.get_running_loop().create_future()

    async def aclose(self) -> None:
        self.closing.set()
        await self.may_close.wait()


class BrokenLink(SlowLink):
    """A carrier that takes a small payload and fails."""

    def eager(
        self, stream: int, segments: Sequence[memoryview]
    ) -> tuple[Sequence[Frame | memoryview], Digests]:
        return (), (1,)

    async def sent(self) -> None:
        raise OSError("the carrier failed")


async def test_a_carrier_that_fails_with_a_small_payload_is_noticed_at_once() -> None:
    ours, theirs = connected()
    link = BrokenLink()
    link.may_close.set()
    dialed = Dialed(ours, link, TransportSettings(eager_bytes=len(PAYLOAD)))
    with pytest.raises(PeerLostError, match="the carrier failed"):
        await dialed.deliver(make_message([PAYLOAD], sender="s"), 60.0)
    assert not dialed.usable
    theirs.close()


def connected() -> tuple[Connection, Connection]:
    ours, theirs = socket.socketpair()
    return Connection(SocketChannel(ours)), Connection(SocketChannel(theirs))


async def some_turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.mark.parametrize("ending", ["peer gone", "cancelled", "cancelled twice"])
async def test_a_slot_is_free_only_when_the_carrier_has_let_go(ending: str) -> None:
    ours, theirs = connected()
    link, inbox, digester = SlowLink(), MemoryInbox(), Digester()
    receiver = Receiver(
        inbox,
        Ledger(),
        sender="s",
        observer=NullObserver(),
        transport="slow",
        max_bytes=1 << 20,
        max_seconds=60.0,
    )
    accepted = Accepted(ours, link, receiver, digester, no_hold, SETTINGS)
    running = asyncio.create_task(accepted.run())
    message = make_message([PAYLOAD], sender="s")
    offer = Outgoing(message, stream=1, segment_bytes=1 << 20, seconds=60.0).offer
    await theirs.write(offer)
    assert (await theirs.read()).kind is Kind.READY
    assert inbox.filling == 1
    if ending == "peer gone":
        theirs.close()
    else:
        running.cancel()
    await link.closing.wait()
    if ending == "cancelled twice":
        running.cancel()
    await some_turns()
    assert inbox.filling == 1, "the carrier may still write to it"
    assert not running.done()
    link.may_close.set()
    await asyncio.wait([running])
    assert inbox.filling == 0
    assert len(inbox.drops) == 1
    theirs.close()
    await digester.aclose()


@pytest.mark.parametrize("times", [1, 2])
async def test_a_sender_has_its_memory_back_only_when_the_carrier_has_let_go(times: int) -> None:
    ours, theirs = connected()
    link = SlowLink()
    dialed = Dialed(ours, link, SETTINGS)
    delivering: asyncio.Task[Any] = asyncio.create_task(
        dialed.deliver(make_message([PAYLOAD], sender="s"), 60.0)
    )
    offer = await theirs.read()
    assert offer.kind is Kind.HEADER
    await theirs.write(Frame(Kind.READY, offer.stream))
    await some_turns()
    delivering.cancel()
    await link.closing.wait()
    if times == 2:
        delivering.cancel()
    await some_turns()
    assert not delivering.done(), "the carrier may still read it"
    link.may_close.set()
    await asyncio.wait([delivering])
    assert delivering.cancelled()
    assert not dialed.usable
    theirs.close()
