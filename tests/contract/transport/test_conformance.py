"""What every backend promises, by whatever it carries the bytes."""

from __future__ import annotations

import asyncio
import gc
import os

import pytest

from disagfusion.transport import TransportSettings, create
from disagfusion.transport.api import (
    Message,
    PeerAddress,
    PeerLostError,
    RefusalReason,
    RefusedError,
    TransportError,
)
from disagfusion.transport.digest import Digest
from disagfusion.transport.testing import (
    Fault,
    FaultyTransport,
    MemoryInbox,
    RecordingObserver,
    make_message,
)

from .conftest import Maker

SIZES = [0, 1, 63, 64, 4095, 65_536, 300_000, (2 << 20) + 64, 17 << 20]


async def test_payloads_of_every_size(maker: Maker) -> None:
    async with maker.end("r") as receiver, maker.end("s") as sender:
        for number, size in enumerate(SIZES):
            payload = os.urandom(size)
            delivery = await sender.send(receiver, payload, message_id=f"m{number}")
            assert receiver.inbox.messages[f"m{number}"] == payload
            assert delivery.nbytes == size
            assert {delivery.transport} == maker.carriers
        assert sender.observer.sent_outcomes == {"delivered": len(SIZES)}
        assert receiver.observer.received_outcomes == {"delivered": len(SIZES)}
        assert receiver.inbox.filling == 0


async def test_the_header_arrives_as_it_was(maker: Maker) -> None:
    async with maker.end("r") as receiver, maker.end("s") as sender:
        message = make_message([b"x" * 64, b"", b"y" * 7], sender="s")
        await sender.transport.send(receiver.transport.address, message, timeout=20)
        assert receiver.inbox.headers == [message.header]
        assert receiver.inbox.messages["message"] == b"x" * 64 + b"y" * 7


async def test_many_buffers_become_one_payload(maker: Maker) -> None:
    parts = [os.urandom(64 * (number % 5)) for number in range(50)]
    async with maker.end("r", segment_bytes=100) as receiver:
        async with maker.end("s", segment_bytes=100) as sender:
            await sender.send(receiver, *parts)
            assert receiver.inbox.messages["message"] == b"".join(parts)


async def test_any_number_of_senders_and_receivers(maker: Maker) -> None:
    payloads = {(s, r, n): os.urandom(30_000) for s in range(3) for r in range(2) for n in range(5)}
    async with maker.end("r0") as r0, maker.end("r1") as r1, maker.end("s0") as s0:
        async with maker.end("s1") as s1, maker.end("s2") as s2:
            senders, receivers = [s0, s1, s2], [r0, r1]
            await asyncio.gather(
                *(
                    senders[s].send(receivers[r], payload, message_id=f"{s}-{r}-{n}")
                    for (s, r, n), payload in payloads.items()
                )
            )
            for (s, r, n), payload in payloads.items():
                assert receivers[r].inbox.messages[f"{s}-{r}-{n}"] == payload


async def test_both_ends_send_at_the_same_time(maker: Maker) -> None:
    async with maker.end("a") as a, maker.end("b") as b:
        for number in range(5):
            one, other = os.urandom(1 << 20), os.urandom(1 << 20)
            await asyncio.gather(
                a.send(b, one, message_id=f"m{number}"), b.send(a, other, message_id=f"m{number}")
            )
            assert b.inbox.messages[f"m{number}"] == one
            assert a.inbox.messages[f"m{number}"] == other


async def test_to_itself(maker: Maker) -> None:
    async with maker.end("a") as a:
        await a.send(a, b"x" * 100_000)
        assert a.inbox.messages["message"] == b"x" * 100_000


async def test_a_thousand_small_messages(maker: Maker) -> None:
    async with maker.end("r") as receiver, maker.end("s") as sender:
        for number in range(1000):
            await sender.send(receiver, b"%08d" % number, message_id=f"m{number}")
        assert receiver.inbox.messages == {f"m{n}": b"%08d" % n for n in range(1000)}


@pytest.mark.parametrize("reason", list(RefusalReason))
async def test_a_refusal_reaches_the_sender(maker: Maker, reason: RefusalReason) -> None:
    async with maker.end("r") as receiver, maker.end("s") as sender:
        receiver.inbox.refuse = RefusedError(reason, "no place · ⛔")
        with pytest.raises(RefusedError) as caught:
            await sender.send(receiver, b"x" * 1000)
        assert (caught.value.reason, caught.value.detail) == (reason, "no place · ⛔")
        assert receiver.inbox.drops == []
        receiver.inbox.refuse = None
        await sender.send(receiver, b"x" * 1000)
        assert receiver.observer.received_outcomes == {reason.value: 1, "delivered": 1}
        assert sender.observer.sent_outcomes == {reason.value: 1, "delivered": 1}


async def test_a_message_is_taken_once(maker: Maker) -> None:
    async with maker.end("r") as receiver, maker.end("s") as sender, maker.end("t") as other:
        await sender.send(receiver, b"x")
        with pytest.raises(RefusedError) as caught:
            await sender.send(receiver, b"y")
        assert caught.value.reason is RefusalReason.STALE
        await other.send(receiver, b"z")
        assert receiver.observer.received_outcomes == {"delivered": 2, "stale": 1}


async def test_too_large(maker: Maker) -> None:
    async with maker.end("r", max_message_bytes=1000) as receiver, maker.end("s") as sender:
        with pytest.raises(RefusedError) as caught:
            await sender.send(receiver, b"x" * 1001)
        assert caught.value.reason is RefusalReason.TOO_LARGE
        assert receiver.inbox.filling == 0
        await sender.send(receiver, b"x" * 1000)


async def test_a_header_that_lies_is_refused_before_it_leaves(maker: Maker) -> None:
    async with maker.end("r") as receiver, maker.end("s") as sender:
        honest = make_message([b"x" * 64], sender="s")
        liar = Message(honest.header, (memoryview(b"x" * 65),))
        with pytest.raises(RefusedError) as caught:
            await sender.transport.send(receiver.transport.address, liar, timeout=20)
        assert caught.value.reason is RefusalReason.MALFORMED
        await sender.send(receiver, b"x" * 64)


async def test_a_header_that_names_another_sender(maker: Maker) -> None:
    async with maker.end("r") as receiver, maker.end("s") as sender:
        message = make_message([b"x"], sender="somebody else")
        with pytest.raises(RefusedError) as caught:
            await sender.transport.send(receiver.transport.address, message, timeout=20)
        assert caught.value.reason is RefusalReason.MALFORMED


async def test_another_incarnation(maker: Maker) -> None:
    async with maker.end("r") as receiver, maker.end("s") as sender:
        address = receiver.transport.address
        stale = PeerAddress(address.backend, "the one before", address.data)
        message = make_message([b"x"], sender="s")
        with pytest.raises(TransportError):
            await sender.transport.send(stale, message, timeout=20)
        assert receiver.inbox.messages == {}


async def test_a_peer_that_is_gone(maker: Maker) -> None:
    async with maker.end("s") as sender:
        async with maker.end("r") as receiver:
            address = receiver.transport.address
            await sender.send(receiver, b"x")
        for number in range(3):
            message = make_message([b"x"], sender="s", message_id=f"m{number}")
            with pytest.raises(PeerLostError):
                await sender.transport.send(address, message, timeout=20)
        assert sender.observer.sent_outcomes == {"delivered": 1, "lost": 3}


async def test_a_peer_of_another_backend(maker: Maker) -> None:
    async with maker.end("s") as sender:
        with pytest.raises(TransportError, match="cannot reach a peer over pigeon"):
            await sender.transport.send(
                PeerAddress("pigeon", "r", b""), make_message(sender="s"), timeout=5
            )


@pytest.mark.parametrize("size", [1000, 9 << 20])
async def test_corruption_is_found_and_counted(maker: Maker, size: int) -> None:
    observer = RecordingObserver()

    def make(digest: Digest) -> object:
        return create(
            maker.backend,
            MemoryInbox(),
            incarnation="s",
            settings=maker.settings(),
            observer=observer,
            digest=digest,
        )

    faulty = FaultyTransport(make)
    faulty.faults.append(Fault.CORRUPT)
    payload = os.urandom(size)
    async with maker.end("r") as receiver, faulty:
        address = receiver.transport.address
        with pytest.raises(RefusedError) as caught:
            await faulty.send(address, make_message([payload], sender="s"), timeout=20)
        assert caught.value.reason is RefusalReason.CHECKSUM
        assert receiver.inbox.drops == [("message", "the checksum is wrong")]
        assert receiver.observer.received_outcomes == {"checksum": 1}
        # The same message again, undamaged: dropped ones may come again.
        await faulty.send(address, make_message([payload], sender="s"), timeout=20)
        assert receiver.inbox.messages["message"] == payload


async def test_duplicates_and_lost_acknowledgements(maker: Maker) -> None:

    def make(digest: Digest) -> object:
        return create(
            maker.backend, MemoryInbox(), incarnation="s", settings=maker.settings(), digest=digest
        )

    faulty = FaultyTransport(make)
    faulty.faults += [Fault.DUPLICATE, Fault.LOSE_ACK, Fault.DELAY, Fault.DROP]
    async with maker.end("r") as receiver, faulty:
        address = receiver.transport.address
        messages = [make_message([b"x"], sender="s", message_id=f"m{n}") for n in range(4)]
        await faulty.send(address, messages[0], timeout=20)
        assert [getattr(one, "reason", None) for one in faulty.duplicates] == ["stale"]
        with pytest.raises(PeerLostError):
            await faulty.send(address, messages[1], timeout=20)
        await faulty.send(address, messages[2], timeout=20)
        with pytest.raises(PeerLostError):
            await faulty.send(address, messages[3], timeout=0.05)
        assert sorted(receiver.inbox.messages) == ["m0", "m1", "m2"]


async def test_a_sender_that_gives_up_frees_the_slot(maker: Maker) -> None:
    async with maker.end("r") as receiver, maker.end("s") as sender:
        for number in range(20):
            task = asyncio.ensure_future(
                sender.send(receiver, os.urandom(8 << 20), message_id=f"m{number}")
            )
            await receiver.inbox.until(filling=1)
            for _ in range(number):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await receiver.inbox.until_idle()
        payload = os.urandom(1 << 20)
        await sender.send(receiver, payload, message_id="last")
        assert receiver.inbox.messages["last"] == payload
        assert len(receiver.inbox.drops) + len(receiver.inbox.headers) == 21


async def test_the_time_is_over(maker: Maker) -> None:
    async with maker.end("r") as receiver, maker.end("s") as sender:
        with pytest.raises(PeerLostError):
            await sender.send(receiver, os.urandom(64 << 20), timeout=0.001)
        await receiver.inbox.until_idle()
        await sender.send(receiver, b"x", message_id="next")


async def test_closing_the_receiver_ends_what_is_under_way(maker: Maker) -> None:
    async with maker.end("s") as sender:
        async with maker.end("r") as receiver:
            sends = [
                asyncio.ensure_future(
                    sender.send(receiver, os.urandom(16 << 20), message_id=f"m{number}")
                )
                for number in range(3)
            ]
            await receiver.inbox.until(filling=1)
        results = await asyncio.gather(*sends, return_exceptions=True)
        assert receiver.inbox.filling == 0
        lost = [result for result in results if isinstance(result, PeerLostError)]
        assert len(lost) + len(receiver.inbox.headers) >= 3
        assert len(lost) == sender.observer.sent_outcomes["lost"]


async def test_closing_the_sender_ends_what_is_under_way(maker: Maker) -> None:
    async with maker.end("r") as receiver:
        async with maker.end("s") as sender:
            send = asyncio.ensure_future(sender.send(receiver, os.urandom(32 << 20)))
            await receiver.inbox.until(filling=1)
        with pytest.raises(PeerLostError):
            await send
        await receiver.inbox.until_idle()
        with pytest.raises(PeerLostError):
            await sender.send(receiver, b"x")


async def test_memory_can_be_released_afterwards(maker: Maker) -> None:
    import mmap

    async with maker.end("r") as receiver:
        async with maker.end("s") as sender:
            memory = mmap.mmap(-1, 12 << 20)
            message = make_message([b"\0" * (12 << 20)], sender="s")
            lent = Message(message.header, (memoryview(memory),))
            send = asyncio.ensure_future(
                sender.transport.send(receiver.transport.address, lent, timeout=20)
            )
            await receiver.inbox.until(filling=1)
            send.cancel()
            await asyncio.gather(send, return_exceptions=True)
            await receiver.inbox.until_idle()
    lent.buffers[0].release()
    del send
    gc.collect()
    # Fails while anything still holds the memory.
    memory.close()


MOMENTS = [(turns, 0.0) for turns in range(25)] + [(0, 0.0005 * number) for number in range(1, 21)]


async def test_a_sender_cancelled_at_any_moment(maker: Maker) -> None:
    """Its memory is its own again, and the message has come once or not at all."""
    memory = bytearray(os.urandom(3 << 20))
    async with maker.end("r") as receiver, maker.end("s") as sender:
        await sender.send(receiver, b"so that there is a connection", message_id="first")
        for number, (turns, seconds) in enumerate(MOMENTS):
            send = asyncio.ensure_future(sender.send(receiver, memory, message_id=f"m{number}"))
            for _ in range(turns):
                await asyncio.sleep(0)
            await asyncio.sleep(seconds)
            send.cancel()
            await asyncio.wait([send])
            assert send.cancelled() or send.exception() is None
            del send
            if maker.name == "tcp+tls":
                # asyncio forgets what it has not written in its next turns.
                await receiver.inbox.until_idle()
            gc.collect()
            # Fails while anything refers to the memory.
            memory.append(0)
            memory.pop()
            await receiver.inbox.until_idle()
        await sender.send(receiver, memory, message_id="last")
        assert receiver.inbox.messages["last"] == memory
        names = [header.message_id for header in receiver.inbox.headers]
        assert len(set(names)) == len(names)
        delivered = sender.observer.sent_outcomes["delivered"]
        assert len(names) >= delivered >= 2


async def test_nothing_is_left_open(maker: Maker) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    async def once() -> None:
        async with maker.end("r") as receiver, maker.end("s") as sender:
            await sender.send(receiver, os.urandom(100_000))

    await once()
    gc.collect()
    before = descriptors()
    for _ in range(5):
        await once()
    gc.collect()
    assert descriptors() <= before


def test_a_backend_that_does_not_exist() -> None:
    with pytest.raises(TransportError, match="there are ucx, tcp, inproc"):
        create("pigeon", MemoryInbox(), incarnation="x")


async def test_a_port_in_use() -> None:
    first = create("tcp", MemoryInbox(), incarnation="a")
    async with first:
        from disagfusion.transport.address import StreamAddress

        port = StreamAddress.decode(first.address.data).port
        second = create(
            "tcp", MemoryInbox(), incarnation="b", settings=TransportSettings(port=port)
        )
        with pytest.raises(TransportError, match=f"127.0.0.1:{port}"):
            await second.start()
