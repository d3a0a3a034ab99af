"""A peer in a process of its own; says what happens in lines on its standard output.

receive: prints "address BACKEND INCARNATION HEX", then "admitted ID" and
"delivered ID" or "dropped ID" each time.
send ADDRESS SIZE: sends messages for ever, prints "sent ID TRANSPORT" or "lost ID" each time.
fail: opens a transport, sends itself a message and fails.
"""

from __future__ import annotations

import asyncio
import os
import sys
import uuid

from disagfusion.transport import TransportSettings, create
from disagfusion.transport.api import MessageHeader, PeerAddress, PeerLostError
from disagfusion.transport.testing import MemoryInbox, make_message


class TellingInbox(MemoryInbox):
    def admit(self, header: MessageHeader) -> memoryview:
        memory = super().admit(header)
        tell("admitted", header.message_id)
        return memory

    def delivered(self, header: MessageHeader, seconds: float) -> None:
        super().delivered(header, seconds)
        self.messages.clear()
        tell("delivered", header.message_id)

    def dropped(self, header: MessageHeader, reason: str) -> None:
        super().dropped(header, reason)
        tell("dropped", header.message_id)


def tell(*words: str) -> None:
    print(*words, flush=True)


async def receive(backend: str, settings: TransportSettings) -> None:
    incarnation = uuid.uuid4().hex
    async with create(backend, TellingInbox(), incarnation=incarnation, settings=settings) as own:
        tell("address", own.address.backend, incarnation, own.address.data.hex())
        await asyncio.Event().wait()


async def send(backend: str, settings: TransportSettings, address: str, size: int) -> None:
    name, target, data = address.split(":")
    peer = PeerAddress(name, target, bytes.fromhex(data))
    incarnation = uuid.uuid4().hex
    payload = os.urandom(size)
    async with create(backend, MemoryInbox(), incarnation=incarnation, settings=settings) as own:
        for number in range(1_000_000):
            message = make_message([payload], sender=incarnation, message_id=f"m{number}")
            try:
                delivery = await own.send(peer, message, timeout=60)
            except PeerLostError:
                tell("lost", f"m{number}")
            else:
                tell("sent", f"m{number}", delivery.transport)


async def fail(backend: str, settings: TransportSettings) -> None:
    own = create(backend, MemoryInbox(), incarnation="x", settings=settings)
    await own.start()
    await own.send(own.address, make_message([b"x" * 100_000], sender="x"), timeout=20)
    raise RuntimeError("on purpose")


def main() -> None:
    role, backend, silence, *rest = sys.argv[1:]
    settings = TransportSettings(heartbeat_seconds=0.1, silence_seconds=float(silence))
    if role == "receive":
        asyncio.run(receive(backend, settings))
    elif role == "send":
        asyncio.run(send(backend, settings, rest[0], int(rest[1])))
    else:
        asyncio.run(fail(backend, settings))


if __name__ == "__main__":
    main()
