"""Both ends in a process that runs out of something; says in lines how each hand-over went.

descriptors BACKEND COUNT: with so many descriptors left for the first two hand-overs, any number
    for the last two.
memory BACKEND: with as much in /dev/shm as there is.

Prints "sent ID TRANSPORT" or "lost ID" for each, and "received COUNT" at the end.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from contextlib import AsyncExitStack

from disagfusion.transport import TransportSettings, create
from disagfusion.transport.api import PeerLostError
from disagfusion.transport.testing import MemoryInbox, make_message

LIMIT = 256
SIZE = 3_000_000


def starve(left: int) -> list[int]:
    """Open files until only so many more can be opened."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (LIMIT, LIMIT))
    files = []
    while True:
        try:
            files.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            break
    for _ in range(left):
        os.close(files.pop())
    return files


async def main() -> None:
    resource_name, backend, *rest = sys.argv[1:]
    settings = TransportSettings(connect_seconds=1.5, heartbeat_seconds=0.1, silence_seconds=3.0)
    inbox = MemoryInbox()
    async with AsyncExitStack() as stack:
        receiver, sender = [
            await stack.enter_async_context(
                create(backend, into, incarnation=name, settings=settings)
            )
            for name, into in (("receiver", inbox), ("sender", MemoryInbox()))
        ]
        files = starve(int(rest[0])) if resource_name == "descriptors" else []
        for number in range(4):
            if number == 2:
                for file in files:
                    os.close(file)
            message = make_message([os.urandom(SIZE)], sender="sender", message_id=f"m{number}")
            try:
                delivery = await sender.send(receiver.address, message, timeout=20)
            except PeerLostError:
                print("lost", f"m{number}")
            else:
                print("sent", f"m{number}", delivery.transport)
        print("received", len(inbox.messages))


if __name__ == "__main__":
    asyncio.run(main())
