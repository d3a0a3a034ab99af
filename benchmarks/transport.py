"""Throughput and latency of hand-overs between two processes, as a table or as JSON.

    python benchmarks/transport.py [--backends ucx,tcp] [--seconds 2] [--json FILE]

Each hand-over is the whole of it: header, admission, payload, checksum on both sides,
acknowledgement. Memory on both sides is allocated once and touched before, as slots are.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import platform
import statistics
import time
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from disagfusion.transport import TransportSettings, create
from disagfusion.transport.api import Message, MessageHeader, PeerAddress
from disagfusion.transport.testing import make_message

SIZES = {"64 KiB": 64 << 10, "4 MiB": 4 << 20, "64 MiB": 64 << 20}
LARGEST = max(SIZES.values())
SLOTS = 2


class Slots:
    """Receive memory in a ring, as a stage's front has it."""

    def __init__(self) -> None:
        self.slots = [bytearray(os.urandom(1 << 20) * (LARGEST >> 20)) for _ in range(SLOTS)]
        self.admitted = 0

    def admit(self, header: MessageHeader) -> memoryview:
        """Return the next slot."""
        self.admitted += 1
        return memoryview(self.slots[self.admitted % SLOTS])[: header.nbytes]

    def delivered(self, header: MessageHeader, seconds: float) -> None:
        """Do nothing: the slot is free again."""

    def dropped(self, header: MessageHeader, reason: str) -> None:
        """Fail: nothing must get lost here."""
        raise RuntimeError(reason)


def receive(backend: str, pipe: Connection) -> None:
    async def serve() -> None:
        async with create(backend, Slots(), incarnation="receiver") as own:
            pipe.send((own.address.backend, own.address.incarnation, own.address.data))
            await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
            idle = time.process_time()
            await asyncio.sleep(2)
            pipe.send((time.process_time() - idle) / 2)

    asyncio.run(serve())


class Sender:
    """Sends parts of one payload."""

    def __init__(self, backend: str) -> None:
        self.transport = create(
            backend, Slots(), incarnation="sender", settings=TransportSettings()
        )
        self.payload = memoryview(os.urandom(1 << 20) * (LARGEST >> 20))
        self.sent = 0
        self.carrier = ""

    async def send(self, peer: PeerAddress, size: int) -> float:
        """Return the seconds that a hand-over took."""
        self.sent += 1
        header = make_message(sender="sender", message_id=str(self.sent)).header
        header = replace(header, nbytes=size)
        message = Message(header, (self.payload[:size],))
        started = time.perf_counter()
        self.carrier = (await self.transport.send(peer, message, timeout=60)).transport
        return time.perf_counter() - started

    async def rate(self, peer: PeerAddress, size: int, seconds: float, at_once: int) -> float:
        """Return bytes per second."""
        await self.send(peer, size)
        started, count = time.perf_counter(), 0

        async def one() -> None:
            nonlocal count
            while time.perf_counter() - started < seconds:
                await self.send(peer, size)
                count += 1

        await asyncio.gather(*(one() for _ in range(at_once)))
        return size * count / (time.perf_counter() - started)


async def measure(backend: str, pipe: Connection, seconds: float) -> dict[str, Any]:
    peer = PeerAddress(*pipe.recv())
    sender = Sender(backend)
    async with sender.transport:
        first = await sender.send(peer, 16 << 10)
        latencies = [await sender.send(peer, 16 << 10) for _ in range(1000)]
        rates = {
            name: {
                str(at_once): await sender.rate(peer, size, seconds, at_once) / 1e9
                for at_once in (1, 2)
            }
            for name, size in SIZES.items()
        }
        pipe.send("done")
        idle = await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
    return {
        "backend": backend,
        "transport": sender.carrier,
        "first_hand_over_ms": first * 1e3,
        "latency_16KiB_ms": {
            "median": statistics.median(latencies) * 1e3,
            "p99": statistics.quantiles(latencies, n=100)[98] * 1e3,
            "minimum": min(latencies) * 1e3,
        },
        "gigabytes_per_second": rates,
        "idle_cpu_fraction": idle,
    }


def run(backend: str, seconds: float) -> dict[str, Any]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=receive, args=(backend, theirs), daemon=True)
    process.start()
    try:
        return asyncio.run(measure(backend, ours, seconds))
    finally:
        process.join(10)
        process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", default="ucx,tcp")
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = [run(backend, arguments.seconds) for backend in arguments.backends.split(",")]
    for result in results:
        latency, rates = result["latency_16KiB_ms"], result["gigabytes_per_second"]
        print(
            f"{result['transport']}: first hand-over {result['first_hand_over_ms']:.1f} ms;"
            f" 16 KiB: median {latency['median']:.2f} ms, P99 {latency['p99']:.2f} ms;"
            f" idle receiver {result['idle_cpu_fraction']:.2%} of a core"
        )
        for name, by_count in rates.items():
            print(
                f"  {name:>7}: " + ", ".join(f"{r:.2f} GB/s with {n}" for n, r in by_count.items())
            )
    if arguments.json:
        where = {"machine": platform.machine(), "cpus": os.cpu_count(), "load": os.getloadavg()}
        arguments.json.write_text(json.dumps({"environment": where, "results": results}, indent=2))


if __name__ == "__main__":
    main()
