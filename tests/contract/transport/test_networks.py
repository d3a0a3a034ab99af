"""A network that flips bits or cuts connections: noticed, counted, and nothing wrong delivered."""

from __future__ import annotations

import os
import random
import socket
from pathlib import Path
from typing import Any

import pytest

from disagfusion.transport.api import TransportError
from disagfusion.transport.backends import acceptor
from disagfusion.transport.backends.channel import Channel, wrap
from disagfusion.transport.testing import make_message

from .conftest import Maker
from .relay import network


@pytest.fixture(params=["tcp", "ucx"])
def maker(request: pytest.FixtureRequest, certificate: Path) -> Maker:
    return Maker(request.param, certificate)


@pytest.mark.parametrize("seed", range(20))
async def test_a_network_that_flips_a_bit(maker: Maker, seed: int) -> None:
    payload = os.urandom(2000)
    length = 2600 if maker.backend == "tcp" else 600
    target = random.Random(seed).randrange(length)

    def flip(position: int, data: bytes) -> bytes:
        if not position <= target < position + len(data):
            return data
        raw = bytearray(data)
        raw[target - position] ^= 0x10
        return bytes(raw)

    async with maker.end("r") as receiver, maker.end("s", heartbeat_seconds=9.0) as sender:
        async with network(receiver, flip) as (address, seen):
            message = make_message([payload], sender="s")
            try:
                await sender.transport.send(address, message, timeout=20)
            except TransportError:
                assert receiver.inbox.messages == {}
            else:
                assert sum(map(len, seen)) <= target, "the damage was not noticed"
            await receiver.inbox.until_idle()
        message = make_message([payload], sender="s", message_id="directly")
        await sender.transport.send(receiver.transport.address, message, timeout=20)
        assert receiver.inbox.messages["directly"] == payload


@pytest.mark.parametrize("seed", range(10))
async def test_a_network_that_cuts_the_connection(maker: Maker, seed: int) -> None:
    payload = os.urandom(2000)
    target = random.Random(seed).randrange(2200 if maker.backend == "tcp" else 300)

    def cut(position: int, data: bytes) -> bytes | None:
        return data if position + len(data) <= target else None

    async with maker.end("r") as receiver, maker.end("s") as sender:
        async with network(receiver, cut) as (address, _):
            with pytest.raises(TransportError):
                await sender.transport.send(
                    address, make_message([payload], sender="s"), timeout=20
                )
            await receiver.inbox.until_idle()
            assert receiver.inbox.messages == {}
        await sender.send(receiver, payload)


async def test_what_a_lost_machine_leaves_is_ended_by_the_kernel(
    maker: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = []

    async def noted(sock: socket.socket, *rest: Any, **options: Any) -> Channel:
        kept.append(
            [
                sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
                sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
                sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
                * sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
            ]
        )
        return await wrap(sock, *rest, **options)

    monkeypatch.setattr(acceptor, "wrap", noted)
    async with maker.end("r") as receiver, maker.end("s") as sender:
        await sender.send(receiver, b"payload")
    assert kept == [[1, 60, 30]]
