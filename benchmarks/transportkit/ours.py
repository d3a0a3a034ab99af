"""Whole hand-overs: header, admission, payload, checksum on both sides, acknowledgement."""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from benchmarks.transportkit.contender import TwoProcesses, started, touched
from disagfusion.transport import TransportSettings, create
from disagfusion.transport.api import Message, MessageHeader, PeerAddress, Transport
from disagfusion.transport.digest import xxh3
from disagfusion.transport.testing import make_message

AT_ONCE = 2
_MANY = 8
_IDLE_SECONDS = 2.0


@dataclass(frozen=True)
class Way:
    """How payloads are moved.

    Attributes:
        backend: Of `disagfusion.transport`.
        network: Whether UCX must not use shared memory, as between machines.
        checksum: Whether payloads are verified; a hand-over of the product always is.
    """

    backend: str
    network: bool = False
    checksum: bool = True

    def create(self, inbox: Any, incarnation: str, at_once: int = AT_ONCE) -> Transport:
        """Return a transport."""
        return create(
            self.backend,
            inbox,
            incarnation=incarnation,
            settings=TransportSettings(
                connections_per_peer=at_once, ucx_shared_memory=not self.network
            ),
            digest=xxh3 if self.checksum else _no_digest,
        )


def _no_digest(view: memoryview) -> int:
    return 0


class Slots:
    """Receive memory, as a stage's front has it: a slot for each hand-over that may be under way.

    Args:
        largest: Bytes of each slot.
        count: How many; senders must not have more under way in all.
    """

    def __init__(self, largest: int, count: int) -> None:
        self._free = [touched(largest) for _ in range(count)]
        self._filling: dict[tuple[str, str], bytearray] = {}
        self.received: dict[str, int] = {}

    def admit(self, header: MessageHeader) -> memoryview:
        """Return a free slot."""
        slot = self._free.pop()
        self._filling[header.sender, header.message_id] = slot
        return memoryview(slot)[: header.nbytes]

    def delivered(self, header: MessageHeader, seconds: float) -> None:
        """Count: the slot is free again."""
        self._free.append(self._filling.pop((header.sender, header.message_id)))
        self.received[header.sender] = self.received.get(header.sender, 0) + 1

    def dropped(self, header: MessageHeader, reason: str) -> None:
        """Fail: nothing must get lost here."""
        raise RuntimeError(reason)


class Sender:
    """Sends parts of one payload."""

    def __init__(self, transport: Transport, name: str, largest: int) -> None:
        self._transport = transport
        self._name = name
        self._payload = memoryview(touched(largest))
        self._numbers = itertools.count()
        self.carrier = ""

    async def send(self, peer: PeerAddress, size: int) -> float:
        """Return the seconds that a hand-over took."""
        header = make_message(sender=self._name, message_id=str(next(self._numbers))).header
        message = Message(replace(header, nbytes=size), (self._payload[:size],))
        begin = time.perf_counter()
        self.carrier = (await self._transport.send(peer, message, timeout=60)).transport
        return time.perf_counter() - begin

    async def rate(self, peer: PeerAddress, size: int, seconds: float, at_once: int) -> float:
        """Return hand-overs per second."""
        await self.send(peer, size)
        begin, count = time.perf_counter(), 0

        async def one() -> None:
            nonlocal count
            while time.perf_counter() - begin < seconds:
                await self.send(peer, size)
                count += 1

        await asyncio.gather(*(one() for _ in range(at_once)))
        return count / (time.perf_counter() - begin)


def receive(pipe: Connection, largest: int, way: Way, slots: int = AT_ONCE) -> None:
    """Receive; on a message through the pipe answer with the share of a core used while idle."""

    async def serve() -> None:
        inbox = Slots(largest, slots)
        async with way.create(inbox, f"receiver-{os.getpid()}") as own:
            pipe.send((own.address.backend, own.address.incarnation, own.address.data))
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(None, pipe.recv)
            begin = time.process_time()
            await asyncio.sleep(_IDLE_SECONDS)
            idle = (time.process_time() - begin) / _IDLE_SECONDS
            pipe.send({"idle": idle, "received": inbox.received})
            await loop.run_in_executor(None, pipe.recv)

    asyncio.run(serve())


def _send(
    place: tuple[str, str, bytes], sizes: Sequence[int], seconds: float, way: Way
) -> dict[int, float]:
    async def run() -> dict[int, float]:
        async with way.create(Slots(0, 0), "sender") as transport:
            sender = Sender(transport, "sender", max(sizes))
            peer = PeerAddress(*place)
            return {size: size * await sender.rate(peer, size, seconds, AT_ONCE) for size in sizes}

    return asyncio.run(run())


def contender(name: str, over: str, way: Way) -> TwoProcesses:
    """Return this transport as a contender."""
    return TwoProcesses(name, over, partial(receive, way=way), partial(_send, way=way))


def measure_small(way: Way, size: int, seconds: float) -> dict[str, Any]:
    """Return times of small hand-overs and how many a second there are."""

    async def run(place: tuple[str, str, bytes]) -> dict[str, Any]:
        async with way.create(Slots(0, 0), "sender", at_once=_MANY) as transport:
            sender, peer = Sender(transport, "sender", size), PeerAddress(*place)
            first = await sender.send(peer, size)
            times = [await sender.send(peer, size) for _ in range(1000)]
            rates = {n: await sender.rate(peer, size, seconds, n) for n in (1, AT_ONCE, _MANY)}
            return {
                "transport": sender.carrier,
                "bytes": size,
                "first_ms": first * 1e3,
                "median_ms": statistics.median(times) * 1e3,
                "p99_ms": statistics.quantiles(times, n=100)[98] * 1e3,
                "hand_overs_per_second": {str(n): rate for n, rate in rates.items()},
            }

    with started(receive, size, way, _MANY) as (pipe, _):
        measured = asyncio.run(run(pipe.recv()))
        pipe.send("idle?")
        return {**measured, "idle_core_share": pipe.recv()["idle"]}


def _produce(
    pipe: Connection, name: str, places: Sequence[tuple[str, str, bytes]], way: Way, size: int
) -> None:
    async def run() -> None:
        async with way.create(Slots(0, 0), name) as transport:
            sender = Sender(transport, name, size)
            peers = [PeerAddress(*place) for place in places]
            for peer in peers:
                await sender.send(peer, size)
            pipe.send("ready")
            seconds = pipe.recv()
            rates = await asyncio.gather(
                *(sender.rate(peer, size, seconds, AT_ONCE) for peer in peers)
            )
            pipe.send(rates)

    asyncio.run(run())
    pipe.recv()


def measure_mesh(way: Way, count: int, size: int, seconds: float) -> Mapping[str, Any]:
    """Every one of so many producers sends to each of so many consumers at the same time.

    Returns:
        The rate of all together, and Jain's index of the pairs' rates: 1 where all are equal,
        1/n where one of n has everything.
    """
    with ExitStack() as stack:
        slots = count * AT_ONCE
        consumers = [
            stack.enter_context(started(receive, size, way, slots))[0] for _ in range(count)
        ]
        places = [pipe.recv() for pipe in consumers]
        producers = [
            stack.enter_context(started(_produce, f"sender-{n}", places, way, size))[0]
            for n in range(count)
        ]
        for pipe in producers:
            pipe.recv()
        for pipe in producers:
            pipe.send(seconds)
        rates = [rate for pipe in producers for rate in pipe.recv()]
        for pipe in consumers:
            pipe.send("count?")
        received = [pipe.recv()["received"] for pipe in consumers]
    return {
        "producers": count,
        "consumers": count,
        "bytes": size,
        "bytes_per_second": size * sum(rates),
        "hand_overs_by_pair": [count for by_sender in received for count in by_sender.values()],
        "jain_index": sum(rates) ** 2 / len(rates) / sum(rate * rate for rate in rates),
    }
