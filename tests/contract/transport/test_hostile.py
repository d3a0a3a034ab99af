"""What strangers, broken peers and bad networks send: refused, counted, nobody else affected."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from disagfusion.transport.address import StreamAddress
from disagfusion.transport.api import RefusedError, TransportError
from disagfusion.transport.frame import (
    MAX_BODY,
    PREFIX_SIZE,
    Frame,
    Hello,
    Kind,
    Offer,
    decode,
    decode_prefix,
    decode_refusal,
    encode,
    encode_data,
    encode_digests,
    encode_hello,
    encode_offer,
)
from disagfusion.transport.testing import make_message

from .conftest import End, Maker
from .relay import network


@pytest.fixture(params=["tcp", "ucx"])
def maker(request: pytest.FixtureRequest, certificate: Path) -> Maker:
    return Maker(request.param, certificate)


class Stranger:
    """Somebody with a socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def say(self, *data: bytes | Frame) -> None:
        for part in data:
            self.writer.write(encode(part) if isinstance(part, Frame) else part)
        try:
            await self.writer.drain()
        except ConnectionError:
            return

    async def hear(self) -> Frame:
        while True:
            prefix = decode_prefix(await self.reader.readexactly(PREFIX_SIZE))
            frame = decode(prefix, await self.reader.readexactly(prefix.length))
            if frame.kind is not Kind.BEAT:
                return frame

    async def ended(self) -> None:
        try:
            while await self.reader.read(1 << 16):
                continue
        except ConnectionError:
            return


@asynccontextmanager
async def stranger(end: End) -> AsyncIterator[Stranger]:
    where = StreamAddress.decode(end.transport.address.data)
    reader, writer = await asyncio.open_connection(where.host, where.port)
    try:
        yield Stranger(reader, writer)
    finally:
        writer.transport.abort()


def greeting(end: End) -> bytes:
    if end.transport.backend != "ucx":
        return b""
    from disagfusion.transport.backends import ucx, ucx_native

    # The mode for networks asks for nothing in common. A true address of a worker that never moves.
    api = ucx_native.library()
    context = end.transport._context(b"n")  # type: ignore[attr-defined]
    worker = api.UCXWorker(context, enable_delayed_submission=False, enable_python_future=False)
    WORKERS.append(worker)
    return ucx.Greeting(b"n", b"", bytes(memoryview(worker.address))).encode()


def hello(end: End, **changes: object) -> Frame:
    where = StreamAddress.decode(end.transport.address.data)
    fields = {
        "incarnation": "evil",
        "expected": "r",
        "token": where.token,
        "backend": end.transport.backend,
        "greeting": greeting(end),
    }
    return Frame(Kind.HELLO, 0, encode_hello(Hello(**{**fields, **changes})))  # type: ignore[arg-type]


def header(nbytes: int = 100, message_id: str = "evil") -> Frame:
    message = make_message([bytes(nbytes)], sender="evil", message_id=message_id)
    offer = Offer(message.header, (nbytes,) if nbytes else (), 60.0)
    return Frame(Kind.HEADER, 1, encode_offer(offer))


WORKERS: list[object] = []

GARBAGE: dict[str, bytes] = {
    "random": random.Random(1).randbytes(100_000),
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "tls": bytes.fromhex("1603010200010001fc0303") + bytes(500),
    "zeros": bytes(4096),
    "our magic and random": b"DFT1" + random.Random(2).randbytes(1000),
    "a body without end": encode(Frame(Kind.HELLO, 0, b""))[:12] + b"\xff\xff\xff\x7f" + bytes(8),
    "a frame of another kind": encode(Frame(Kind.ACK, 0)),
    "an empty introduction": encode(Frame(Kind.HELLO, 0)),
}


@pytest.mark.parametrize("name", GARBAGE)
async def test_garbage(maker: Maker, name: str) -> None:
    async with maker.end("r") as receiver, maker.end("s") as sender:
        sending = asyncio.ensure_future(sender.send(receiver, os.urandom(2 << 20)))
        async with stranger(receiver) as other:
            await other.say(GARBAGE[name])
            await other.ended()
        await sending
        await receiver.observer.until_rejected(1)
        assert receiver.observer.rejections == {"malformed": 1}
        assert list(receiver.inbox.messages) == ["message"]


async def test_a_stranger_that_leaves_or_says_nothing(maker: Maker) -> None:
    async with maker.end("r", connect_seconds=0.3) as receiver:
        async with stranger(receiver):
            await receiver.observer.until_rejected(1)
        async with stranger(receiver) as other:
            await other.say(b"DFT1")
        await receiver.observer.until_rejected(2)
        assert receiver.observer.rejections == {"silent": 1, "handshake": 1}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"token": bytes(16)}, "token"),
        ({"token": b""}, "token"),
        ({"expected": "another"}, "stale"),
        ({"backend": "pigeon"}, "malformed"),
    ],
)
async def test_introductions_that_are_refused(
    maker: Maker, changes: dict[str, object], reason: str
) -> None:
    async with maker.end("r") as receiver:
        async with stranger(receiver) as other:
            await other.say(hello(receiver, **changes), header())
            assert (await other.hear()).kind is Kind.NACK
            await other.ended()
        await receiver.observer.until_rejected(1)
        assert receiver.observer.rejections == {reason: 1}
        assert receiver.inbox.filling == 0


def flipped(frame: Frame, bit: int) -> bytes:
    raw = bytearray(encode(frame))
    raw[bit // 8] ^= 1 << bit % 8
    return bytes(raw)


AFTER_HELLO: dict[str, list[bytes | Frame]] = {
    "garbage": [random.Random(3).randbytes(1000)],
    "an acknowledgement": [Frame(Kind.ACK, 1)],
    "another introduction": [Frame(Kind.HELLO, 1)],
    "payload of nothing": [Frame(Kind.DATA, 1, encode_data(0, 10)), bytes(10)],
    "checksums of nothing": [Frame(Kind.DIGEST, 1, encode_digests((1,)))],
    "a header that is none": [Frame(Kind.HEADER, 1, b"\xff" * 200)],
    "a damaged header": [flipped(header(), 1000)],
    "a header beyond the bound": [
        encode(header())[:12] + (MAX_BODY + 1).to_bytes(4, "little") + bytes(8)
    ],
}
AFTER_HEADER: dict[str, list[bytes | Frame]] = {
    "another header": [header(message_id="second")],
    "checksums of another": [Frame(Kind.DIGEST, 2, encode_digests((1,)))],
    "too many checksums": [Frame(Kind.DIGEST, 1, encode_digests((1, 2)))],
    "garbage": [random.Random(4).randbytes(1000)],
    "too much payload": [Frame(Kind.DATA, 1, encode_data(0, 101)), bytes(101)],
    "too little payload": [Frame(Kind.DATA, 1, encode_data(0, 99)), bytes(99)],
    "another segment": [Frame(Kind.DATA, 1, encode_data(1, 100)), bytes(100)],
    "payload without a description": [Frame(Kind.DATA, 1)],
}


@pytest.mark.parametrize("name", AFTER_HELLO)
async def test_nonsense_from_a_peer(maker: Maker, name: str) -> None:
    async with maker.end("r") as receiver, maker.end("s") as sender:
        async with stranger(receiver) as other:
            await other.say(hello(receiver))
            assert (await other.hear()).kind is Kind.WELCOME
            await other.say(*AFTER_HELLO[name])
            await other.ended()
        await receiver.observer.until_rejected(1)
        assert receiver.observer.rejections == {"malformed": 1}
        assert receiver.inbox.drops == []
        await sender.send(receiver, b"x")


@pytest.mark.parametrize("name", AFTER_HEADER)
async def test_nonsense_in_the_midst_of_a_message(maker: Maker, name: str) -> None:
    async with maker.end("r") as receiver, maker.end("s") as sender:
        async with stranger(receiver) as other:
            await other.say(hello(receiver))
            assert (await other.hear()).kind is Kind.WELCOME
            await other.say(header())
            assert (await other.hear()).kind is Kind.READY
            await other.say(*AFTER_HEADER[name])
            await other.ended()
        await receiver.observer.until_rejected(1)
        assert receiver.observer.rejections == {"malformed": 1}
        assert [name for name, _ in receiver.inbox.drops] == ["evil"]
        await sender.send(receiver, b"x")


async def test_a_peer_that_never_sends_what_it_offered(maker: Maker) -> None:
    async with maker.end("r", transfer_seconds=0.3) as receiver:
        async with stranger(receiver) as other:
            await other.say(hello(receiver), header())
            assert (await other.hear()).kind is Kind.WELCOME
            assert (await other.hear()).kind is Kind.READY
            ended = asyncio.ensure_future(other.ended())
            while not ended.done():
                # It lives, and it does nothing else.
                await other.say(Frame(Kind.BEAT, 0))
                await asyncio.wait([ended], timeout=0.02)
        assert receiver.inbox.drops == [("evil", "the transfer took too long")]


async def test_an_offer_that_is_too_large_allocates_nothing(maker: Maker) -> None:
    async with maker.end("r", max_message_bytes=1 << 20) as receiver:
        async with stranger(receiver) as other:
            await other.say(hello(receiver))
            assert (await other.hear()).kind is Kind.WELCOME
            await other.say(header((1 << 20) + 1))
            answer = await other.hear()
            assert answer.kind is Kind.NACK
            assert decode_refusal(answer.body)[0] == "too_large"
        assert receiver.observer.received_outcomes == {"too_large": 1}
        assert receiver.inbox.filling == 0


async def test_a_crowd_of_strangers_keeps_nobody_out(maker: Maker) -> None:
    async with maker.end("r") as receiver, maker.end("s") as sender:
        await sender.send(receiver, b"x", message_id="before")
        where = StreamAddress.decode(receiver.transport.address.data)
        crowd = [await asyncio.open_connection(where.host, where.port) for _ in range(150)]
        await receiver.observer.until_rejected(80)
        await sender.send(receiver, b"x", message_id="through a connection that was there")
        async with maker.end("t") as newcomer:
            await newcomer.send(receiver, b"x", message_id="through a new one")
        assert len(receiver.inbox.messages) == 3
        for _, writer in crowd:
            writer.transport.abort()


async def test_a_replayed_connection_is_refused_and_counted(certificate: Path) -> None:
    maker = Maker("tcp", certificate)
    payload = os.urandom(2000)
    async with maker.end("r") as receiver, maker.end("s", heartbeat_seconds=9.0) as sender:
        async with network(receiver, lambda position, data: data) as (address, seen):
            await sender.transport.send(address, make_message([payload], sender="s"), timeout=20)
        async with stranger(receiver) as other:
            await other.say(*seen)
            assert (await other.hear()).kind is Kind.WELCOME
            answer = await other.hear()
            assert answer.kind is Kind.NACK
            assert decode_refusal(answer.body)[0] == "stale"
            # The payload that came with it was skipped, and the connection still understands.
            await other.say(*seen[1:])
            assert (await other.hear()).kind is Kind.NACK
        assert receiver.observer.received_outcomes == {"delivered": 1, "stale": 2}
        assert len(receiver.inbox.headers) == 1


async def test_tls_only(certificate: Path) -> None:
    plain, secure = Maker("tcp", certificate), Maker("tcp+tls", certificate)
    async with secure.end("r") as receiver, plain.end("s") as sender:
        with pytest.raises(TransportError, match="wants TLS"):
            await sender.send(receiver, b"x")
        async with stranger(receiver) as other:
            await other.say(hello(receiver))
            await other.ended()
        await receiver.observer.until_rejected(1)
        assert receiver.observer.rejections == {"handshake": 1}
        async with secure.end("t", client_tls=None) as without:
            with pytest.raises(TransportError):
                await without.send(receiver, b"x")
        async with secure.end("u") as good:
            await good.send(receiver, b"x")


async def test_ucx_listens_where_it_is_told(certificate: Path) -> None:
    maker = Maker("ucx-network", certificate)
    options = {"ucx_options": {"TLS": "tcp,self", "TCP_PORT_RANGE": "42100-42179"}}
    before = _listening()
    async with maker.end("r", **options) as receiver, maker.end("s", **options) as sender:
        await sender.send(receiver, b"x")
        own = {StreamAddress.decode(end.transport.address.data).port for end in (receiver, sender)}
        ports = _listening() - before - own
        assert ports
        assert ports <= set(range(42100, 42180))


@pytest.mark.parametrize(
    ("advertise", "loopback"),
    [("", True), ("127.0.0.2", True), ("a-name", True), ("10.0.0.7", False), ("fd00::7", False)],
)
async def test_ucx_leaves_the_loopback_out_where_peers_are_elsewhere(
    certificate: Path, advertise: str, loopback: bool
) -> None:
    async with Maker("ucx", certificate).end("r", advertise=advertise) as receiver:
        assert ("tcp/lo" in receiver.transport._context(b"n").info) == loopback


def _listening() -> set[int]:
    return {
        connection.laddr.port
        for connection in psutil.Process().net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    }


async def test_random_bytes_on_ucx_own_ports(certificate: Path) -> None:
    maker = Maker("ucx-network", certificate)
    async with maker.end("r") as receiver, maker.end("s") as sender:
        delivery = await sender.send(receiver, os.urandom(1 << 20), message_id="first")
        assert delivery.transport == "ucx/tcp"
        own = {StreamAddress.decode(end.transport.address.data).port for end in (receiver, sender)}
        ports = {
            connection.laddr
            for connection in psutil.Process().net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port not in own
        }
        assert ports, "UCX listens nowhere: nothing was tried"
        for host, port in ports:
            for data in (b"", b"GET / HTTP/1.1\r\n\r\n", random.Random(5).randbytes(10_000)):
                _, writer = await asyncio.open_connection(host, port)
                writer.write(data)
                await asyncio.gather(writer.drain(), return_exceptions=True)
                writer.transport.abort()
                payload = os.urandom(1 << 20)
                await sender.send(receiver, payload, message_id=f"{port}-{len(data)}")
                assert receiver.inbox.messages[f"{port}-{len(data)}"] == payload


def test_refusals_are_errors_of_the_transport() -> None:
    assert issubclass(RefusedError, TransportError)
