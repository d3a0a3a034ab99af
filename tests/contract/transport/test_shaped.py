"""Every backend over a link that is slower than it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from disagfusion.transport import create
from disagfusion.transport.api import Inbox, PeerLostError, Transport
from disagfusion.transport.digest import Hold
from disagfusion.transport.testing import (
    LinkShape,
    MemoryInbox,
    RecordingObserver,
    ShapedTransport,
)

from .conftest import End, Maker

MEGABYTE = 1_000_000


@asynccontextmanager
async def shaped(maker: Maker, incarnation: str, shape: LinkShape) -> AsyncIterator[End]:
    inbox, observer = MemoryInbox(), RecordingObserver()

    def make(inbox: Inbox, hold: Hold) -> Transport:
        settings = maker.settings(segment_bytes=MEGABYTE // 4)
        return create(
            maker.backend,
            inbox,
            incarnation=incarnation,
            settings=settings,
            observer=observer,
            hold=hold,
        )

    async with ShapedTransport(make, inbox, shape) as transport:
        yield End(transport, inbox, observer, incarnation)


async def test_messages_take_the_links_time_and_share_it(maker: Maker) -> None:
    payload = bytes(range(256)) * (MEGABYTE // 256)
    shape = LinkShape(latency=0.05, bytes_per_second=5 * MEGABYTE)
    now = asyncio.get_running_loop().time
    async with shaped(maker, "r", shape) as receiver, maker.end("s") as sender:
        began = now()

        async def arrival(number: int) -> float:
            await sender.send(receiver, payload, message_id=f"m{number}")
            return now() - began

        arrivals = sorted(await asyncio.gather(arrival(1), arrival(2)))
        assert sorted(receiver.inbox.messages.values()) == [payload] * 2
    carried = len(payload) / (5 * MEGABYTE)
    assert arrivals[0] >= 0.05 + carried
    assert arrivals[1] >= 0.05 + 2 * carried, "the second waits for the first"


async def test_what_is_sent_over_an_unshaped_link_is_not_held(maker: Maker) -> None:
    slow = LinkShape(latency=100.0)
    async with shaped(maker, "s", slow) as sender, maker.end("r") as receiver:
        delivery = await sender.send(receiver, b"x" * 1000, timeout=50)
        assert delivery.seconds < 50
        assert list(receiver.inbox.messages.values()) == [b"x" * 1000]


async def test_a_connection_that_breaks_and_the_next_message(maker: Maker) -> None:
    slow, broken = LinkShape(latency=0.5), LinkShape(latency=0.5, loss=1.0)
    async with shaped(maker, "r", slow) as receiver:
        async with shaped(maker, "s", broken) as sender:
            with pytest.raises(PeerLostError, match="broke"):
                await sender.send(receiver, b"x" * 1000)
            await receiver.inbox.until_idle()
            assert not receiver.inbox.messages
        async with maker.end("again") as sender:
            await sender.send(receiver, b"x" * 1000)
            assert list(receiver.inbox.messages.values()) == [b"x" * 1000]
