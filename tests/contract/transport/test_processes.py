"""Peers in processes of their own, which die and freeze in the midst of a transfer."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from disagfusion.transport import TransportSettings, create
from disagfusion.transport.api import PeerAddress, PeerLostError
from disagfusion.transport.testing import MemoryInbox, RecordingObserver, make_message

from .conftest import End

SIZE = 48 << 20
CARRIER = {"tcp": "tcp", "ucx": "ucx/shm"}
SILENCE = 3.0


class Process:
    """A peer process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self, *wanted: str) -> list[str]:
        """Return the words of the next line that begins with one of the wanted words."""
        assert self.process.stdout is not None
        while True:
            words = (await self.process.stdout.readline()).decode().split()
            assert words, "the peer process ended"
            if words[0] in wanted:
                return words

    async def address(self) -> PeerAddress:
        _, backend, incarnation, data = await self.line("address")
        return PeerAddress(backend, incarnation, bytes.fromhex(data))

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)


@asynccontextmanager
async def peer(role: str, backend: str, *arguments: str) -> AsyncIterator[Process]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        Path(__file__).with_name("peer.py"),
        role,
        backend,
        str(SILENCE),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def here(backend: str) -> AsyncIterator[End]:
    inbox, observer = MemoryInbox(), RecordingObserver()
    settings = TransportSettings(heartbeat_seconds=0.1, silence_seconds=SILENCE)
    own = create(backend, inbox, incarnation="here", settings=settings, observer=observer)
    async with own:
        yield End(own, inbox, observer, "here")


async def send_until_lost(end: End, address: PeerAddress) -> int:
    """Send messages until one is lost; return how many were not."""
    payload = os.urandom(SIZE)
    for number in range(1_000_000):
        message = make_message(
            [payload], sender="here", message_id=f"{address.data[-8:]!r}{number}"
        )
        try:
            await end.transport.send(address, message, timeout=60)
        except PeerLostError:
            return number
    raise AssertionError("the fault never happened")


def told(address: PeerAddress) -> str:
    return f"{address.backend}:{address.incarnation}:{address.data.hex()}"


def leftovers() -> set[str]:
    return {name for name in os.listdir("/dev/shm") if name.startswith("ucx")}


@pytest.fixture(params=["tcp", "ucx"])
def backend(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


async def test_between_processes(backend: str) -> None:
    async with here(backend) as end, peer("receive", backend) as receiver:
        address = await receiver.address()
        for number, size in enumerate([0, 1, 100_000, SIZE]):
            message = make_message([os.urandom(size)], sender="here", message_id=f"m{number}")
            delivery = await end.transport.send(address, message, timeout=60)
            assert delivery.transport == CARRIER[backend]
            assert await receiver.line("delivered", "dropped") == ["delivered", f"m{number}"]


async def test_a_receiver_is_killed_while_another_is_served(backend: str) -> None:
    before = leftovers()
    async with here(backend) as end, peer("receive", backend) as healthy:
        async with peer("receive", backend) as victim:
            victim_address, healthy_address = await victim.address(), await healthy.address()
            lost = asyncio.ensure_future(send_until_lost(end, victim_address))
            await victim.line("delivered")
            await victim.line("admitted")
            victim.signal(signal.SIGKILL)
            payload = os.urandom(SIZE)
            for number in range(5):
                message = make_message([payload], sender="here", message_id=f"h{number}")
                await end.transport.send(healthy_address, message, timeout=60)
                assert await healthy.line("delivered", "dropped") == ["delivered", f"h{number}"]
            assert await lost >= 1
    assert leftovers() == before


async def test_a_receiver_is_frozen_and_comes_back(backend: str) -> None:
    async with here(backend) as end, peer("receive", backend) as healthy:
        async with peer("receive", backend) as victim:
            victim_address, healthy_address = await victim.address(), await healthy.address()
            lost = asyncio.ensure_future(send_until_lost(end, victim_address))
            await victim.line("delivered")
            await victim.line("admitted")
            victim.signal(signal.SIGSTOP)
            message = make_message([os.urandom(SIZE)], sender="here", message_id="h")
            await end.transport.send(healthy_address, message, timeout=60)
            assert await lost >= 1
            victim.signal(signal.SIGCONT)
            message = make_message([os.urandom(SIZE)], sender="here", message_id="again")
            delivery = await end.transport.send(victim_address, message, timeout=60)
            assert delivery.transport == CARRIER[backend]
            while (await victim.line("delivered", "dropped"))[1] != "again":
                continue


async def test_a_sender_is_killed_while_another_is_served(backend: str) -> None:
    before = leftovers()
    async with here(backend) as end:
        address = told(end.transport.address)
        async with peer("send", backend, address, str(SIZE)) as healthy:
            async with peer("send", backend, address, str(SIZE)) as victim:
                await victim.line("sent")
                await end.inbox.until(filling=1)
                victim.signal(signal.SIGKILL)
                # Whatever it was sending ends; the other one goes on.
                assert await victim.process.wait() == -signal.SIGKILL
                delivered = len(end.inbox.headers)
                await end.inbox.until(delivered=delivered + 3)
                assert (await healthy.line("sent", "lost"))[0] == "sent"
        await end.inbox.until_idle()
    assert leftovers() == before


async def test_a_sender_is_frozen_and_writes_to_nobodys_memory(backend: str) -> None:
    async with here(backend) as end:
        lent: list[memoryview] = []
        admit = end.inbox.admit
        end.inbox.admit = lambda header: lent.append(admit(header)) or lent[-1]  # type: ignore[method-assign,func-returns-value]
        async with peer("send", backend, told(end.transport.address), str(SIZE)) as victim:
            for _ in range(20):
                await end.inbox.until_idle()
                await end.inbox.until(filling=1)
                victim.signal(signal.SIGSTOP)
                await end.inbox.until_idle()
                if end.inbox.drops:
                    break
                # It froze when all was said; the next time then.
                victim.signal(signal.SIGCONT)
            assert end.inbox.drops, "it never froze in the midst of a transfer"
            # The memory is somebody else's now.
            lent[-1][:] = bytes(SIZE)
            end.inbox.admit = admit  # type: ignore[method-assign]
            victim.signal(signal.SIGCONT)
            assert (await victim.line("lost"))[0] == "lost"
            assert (await victim.line("sent"))[0] == "sent"
            assert lent[-1] == bytes(SIZE)


async def test_a_process_that_fails_ends(backend: str) -> None:
    async with peer("fail", backend) as process:
        assert await process.process.wait() == 1
