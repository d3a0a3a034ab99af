"""What one would write without this transport: asyncio's streams, and a stream of gRPC.

Both wait for an answer to each message, have as many under way as ours, and copy what arrives to
memory that is there already; none verifies it.
"""

from __future__ import annotations

import asyncio
import struct
import time
from collections.abc import AsyncIterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import grpc
import grpc.aio

from benchmarks.transportkit.contender import MEBIBYTE, TwoProcesses, touched
from benchmarks.transportkit.ours import AT_ONCE

_LENGTH = struct.Struct("<Q")
_CHUNK = MEBIBYTE
_METHOD = "/benchmark.Bytes/Put"
_UNBOUNDED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def _receive_streams(pipe: Connection, largest: int) -> None:
    async def put(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        slot = memoryview(touched(largest))
        while header := await reader.read(_LENGTH.size):
            (left,) = _LENGTH.unpack(header)
            at = 0
            while at < left:
                data = await reader.read(left - at)
                slot[at : at + len(data)] = data
                at += len(data)
            writer.write(b"k")

    async def serve() -> None:
        server = await asyncio.start_server(put, "127.0.0.1", 0, limit=4 * MEBIBYTE)
        pipe.send(server.sockets[0].getsockname())
        await server.serve_forever()

    asyncio.run(serve())


def _send_streams(place: tuple[str, int], sizes: Sequence[int], seconds: float) -> dict[int, float]:
    async def run() -> dict[int, float]:
        payload = memoryview(touched(max(sizes)))
        streams = [await asyncio.open_connection(*place) for _ in range(AT_ONCE)]

        async def put(stream: Any, size: int) -> None:
            reader, writer = stream
            writer.write(_LENGTH.pack(size))
            writer.write(payload[:size])
            await writer.drain()
            await reader.readexactly(1)

        return {size: await _rate(put, streams, size, seconds) for size in sizes}

    return asyncio.run(run())


class _Servicer(grpc.GenericRpcHandler):
    def __init__(self, largest: int) -> None:
        self._slots = [memoryview(touched(largest)) for _ in range(AT_ONCE)]
        self._calls = 0

    def service(self, call: grpc.HandlerCallDetails) -> Any:
        return grpc.stream_unary_rpc_method_handler(self._put) if call.method == _METHOD else None

    async def _put(self, chunks: AsyncIterator[bytes], context: object) -> bytes:
        self._calls += 1
        slot, at = self._slots[self._calls % AT_ONCE], 0
        async for chunk in chunks:
            slot[at : at + len(chunk)] = chunk
            at += len(chunk)
        return b"k"


def _receive_grpc(pipe: Connection, largest: int) -> None:
    async def serve() -> None:
        server = grpc.aio.server(options=_UNBOUNDED)
        server.add_generic_rpc_handlers([_Servicer(largest)])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        pipe.send(port)
        await server.wait_for_termination()

    asyncio.run(serve())


def _send_grpc(port: int, sizes: Sequence[int], seconds: float) -> dict[int, float]:
    async def run() -> dict[int, float]:
        payload = memoryview(touched(max(sizes)))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=_UNBOUNDED) as channel:
            method: Any = channel.stream_unary(_METHOD)

            async def put(_: object, size: int) -> None:
                async def chunks() -> AsyncIterator[bytes]:
                    for at in range(0, size, _CHUNK):
                        yield bytes(payload[at : min(at + _CHUNK, size)])

                await method(chunks())

            return {size: await _rate(put, range(AT_ONCE), size, seconds) for size in sizes}

    return asyncio.run(run())


async def _rate(put: Any, lanes: Sequence[Any], size: int, seconds: float) -> float:
    """Return bytes per second over all lanes."""
    for lane in lanes:
        await put(lane, size)
    begin, count = time.perf_counter(), 0

    async def run(lane: Any) -> None:
        nonlocal count
        while time.perf_counter() - begin < seconds:
            await put(lane, size)
            count += 1

    await asyncio.gather(*map(run, lanes))
    return size * count / (time.perf_counter() - begin)


def contenders() -> tuple[TwoProcesses, ...]:
    """Return them."""
    return (
        TwoProcesses("asyncio streams", "tcp", _receive_streams, _send_streams),
        TwoProcesses("gRPC stream", "tcp", _receive_grpc, _send_grpc),
    )
