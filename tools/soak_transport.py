"""Hand-overs for minutes among processes that are killed and stopped at random.

    python tools/soak_transport.py [--minutes 10] [--seed 0] [--backend ucx]

One process stays: it receives from senders and sends to receivers that come and go. Every message
that it sends is delivered once or reported; what it receives is whole and comes once; and its
memory does not grow.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import signal
import statistics
import sys
import time
import uuid
from asyncio.subprocess import PIPE, Process
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Coroutine
from functools import cache
from random import Random
from typing import Any

import psutil

from disagfusion.transport import TransportSettings, create
from disagfusion.transport.api import (
    MessageHeader,
    PeerAddress,
    PeerLostError,
    Transport,
    TransportError,
)
from disagfusion.transport.testing import make_message

CHILDREN = {"send": 3, "receive": 3}
SIZES = (1, 10_000, 250_000, 3_000_000, 20_000_000)
SILENCE = 1.0
# A peer that is killed or stopped may leave a few kilobytes behind.
ALLOWED_BYTES_PER_MINUTE = 1 << 20
_SETTINGS = TransportSettings(heartbeat_seconds=0.2, silence_seconds=SILENCE, connect_seconds=5.0)


@cache
def _bytes() -> memoryview:
    # The same in every process.
    return memoryview(Random(0).randbytes(max(SIZES) + (1 << 20)))


def pattern(number: int, size: int) -> memoryview:
    """Return a message's payload, which takes no memory of its own."""
    start = number * 4099 % (1 << 20)
    return _bytes()[start : start + size]


class Slots:
    """An inbox with memory for anybody; checks what comes and forgets it.

    A sender numbers its messages and several of them may be under way.

    Args:
        told: Called with a message's number once it is there.

    Attributes:
        count: Messages that came.
        wrong: What was wrong with some.
    """

    def __init__(self, told: Callable[[int], None]) -> None:
        self.count = 0
        self.wrong: list[str] = []
        self._told = told
        self._free: list[memoryview] = []
        self._filling: dict[tuple[str, str], memoryview] = {}
        # By sender, of the last few; the window is wider than what is under way.
        self._recent: OrderedDict[str, deque[int]] = OrderedDict()

    def admit(self, header: MessageHeader) -> memoryview:
        """Give memory."""
        slot = self._free.pop() if self._free else memoryview(bytearray(max(SIZES)))
        self._filling[header.sender, header.message_id] = slot
        return slot[: header.nbytes]

    def delivered(self, header: MessageHeader, seconds: float) -> None:
        """Check a message."""
        number = int(header.message_id)
        slot = self._filling.pop((header.sender, header.message_id))
        self._free.append(slot)
        # memoryview compares one element after the other.
        if bytes(slot[: header.nbytes]) != bytes(pattern(number, header.nbytes)):
            self.wrong.append(f"message {number} is damaged")
        recent = self._recent.setdefault(header.sender, deque(maxlen=64))
        if number in recent:
            self.wrong.append(f"message {number} came twice")
        recent.append(number)
        self._recent.move_to_end(header.sender)
        if len(self._recent) > 8 * sum(CHILDREN.values()):
            self._recent.popitem(last=False)
        self.count += 1
        self._told(number)

    def dropped(self, header: MessageHeader, reason: str) -> None:
        """Take the memory back."""
        self._free.append(self._filling.pop((header.sender, header.message_id)))


async def child(role: str, backend: str, place: str) -> None:
    """Be a process that may be killed: send for ever, or receive and say what came."""
    incarnation = uuid.uuid4().hex
    inbox = Slots(lambda number: print("delivered", number, *inbox.wrong, flush=True))
    async with create(backend, inbox, incarnation=incarnation, settings=_SETTINGS) as own:
        if role == "receive":
            print("address", backend, incarnation, own.address.data.hex(), flush=True)
            await asyncio.Event().wait()
        name, target, data = place.split(":")
        peer = PeerAddress(name, target, bytes.fromhex(data))
        print("ready", flush=True)
        random = Random(incarnation)
        for number in range(1 << 40):
            size = random.choice(SIZES)
            message = make_message(
                [pattern(number, size)], sender=incarnation, message_id=str(number)
            )
            with contextlib.suppress(TransportError):
                await own.send(peer, message, timeout=30)


class Victim:
    """A child and what it has said.

    Args:
        role: "send" or "receive".
        process: The child.

    Attributes:
        address: Where to send to, once it has said so.
        ended: Whether it has, and all it said was heard.
        wrong: What was wrong with what it received.
    """

    def __init__(self, role: str, process: Process) -> None:
        self.role = role
        self.address: PeerAddress | None = None
        self.ended = False
        self.wrong: list[str] = []
        # Said and not yet acknowledged to us, or the other way round.
        self._open: dict[int, str] = {}
        self._process: Process | None = process

    @property
    def missing(self) -> list[int]:
        """Messages that were acknowledged to us and that it did not have."""
        return [number for number, who in self._open.items() if who == "acknowledged"]

    def note(self, number: int, who: str) -> None:
        """Note that a message was "said" to have come, or "acknowledged"."""
        if self._open.setdefault(number, who) != who:
            del self._open[number]

    async def listen(self) -> None:
        """Note what it says, to its last word."""
        assert self._process is not None
        assert self._process.stdout is not None
        # One that is killed may leave half a line.
        while (said := (await self._process.stdout.readline()).decode()).endswith("\n"):
            line = said.split()
            if line[0] == "address":
                self.address = PeerAddress(line[1], line[2], bytes.fromhex(line[3]))
            elif line[0] == "delivered":
                self.note(int(line[1]), "said")
                self.wrong += line[2:]
        await self._process.wait()
        # Buffers of hundreds of processes would look like growth.
        self._process = None
        self.ended = True

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it is there."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)


class Soak:
    """The process that stays.

    Args:
        backend: What carries tensors.
        seed: Of what happens.
    """

    def __init__(self, backend: str, seed: int) -> None:
        self.backend = backend
        self.random = Random(seed)
        self.inbox = Slots(lambda number: None)
        self.outcomes: Counter[str] = Counter()
        self.victims: list[Victim] = []
        self.wrong: list[str] = []
        self.deeds: Counter[str] = Counter()
        self._tasks: set[asyncio.Task[None]] = set()
        self._number = 0

    async def run(self, seconds: float) -> bool:
        """Soak; return whether everything was as it should be."""
        incarnation = uuid.uuid4().hex
        began = time.monotonic()
        sizes: list[tuple[float, int]] = []
        async with create(
            self.backend,
            self.inbox,
            incarnation=incarnation,
            settings=_SETTINGS,
        ) as own:
            self._place = f"{self.backend}:{incarnation}:{own.address.data.hex()}"
            for role, count in CHILDREN.items():
                for _ in range(count):
                    await self._start(role)
            senders = [self._spawn(self._send(own, incarnation)) for _ in range(4)]
            while (passed := time.monotonic() - began) < seconds:
                await self._harm()
                await asyncio.sleep(self.random.uniform(0.05, 0.6))
                if not sizes or passed - sizes[-1][0] > 10:
                    # What the tracebacks of lost messages refer to is no growth.
                    gc.collect()
                    sizes.append((passed, psutil.Process().memory_full_info().uss))
                    print(
                        f"{passed:4.0f} s: {sizes[-1][1] / 2**20:.1f} MiB,"
                        f" received {self.inbox.count},"
                        f" sent {dict(self.outcomes)}, done {dict(self.deeds)}",
                        flush=True,
                    )
            for task in senders:
                task.cancel()
            await asyncio.gather(*senders, return_exceptions=True)
        for victim in self.victims:
            victim.signal(signal.SIGKILL)
        await asyncio.gather(*self._tasks)
        return self._judge(sizes)

    async def _start(self, role: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, __file__, "--child", role, "--backend", self.backend),
            *("--place", self._place),
            stdout=PIPE,
        )
        victim = Victim(role, process)
        self.victims.append(victim)
        self._spawn(victim.listen())

    async def _harm(self) -> None:
        alive = [victim for victim in self.victims if not victim.ended]
        victim = self.random.choice(alive)
        if self.random.random() < 0.5:
            self.deeds["killed"] += 1
            victim.signal(signal.SIGKILL)
            await self._start(victim.role)
            return
        self.deeds["stopped"] += 1
        seconds = self.random.choice((0.05, 0.5, 2 * SILENCE))
        victim.signal(signal.SIGSTOP)
        self._spawn(self._continue(victim, seconds))

    @staticmethod
    async def _continue(victim: Victim, seconds: float) -> None:
        await asyncio.sleep(seconds)
        victim.signal(signal.SIGCONT)

    async def _send(self, own: Transport, incarnation: str) -> None:
        while True:
            living = [v for v in self.victims if v.address is not None and not v.ended]
            if not living:
                await asyncio.sleep(0.05)
                continue
            victim = self.random.choice(living)
            self._number += 1
            number = self._number
            payload = pattern(number, self.random.choice(SIZES))
            message = make_message([payload], sender=incarnation, message_id=str(number))
            assert victim.address is not None
            try:
                await own.send(victim.address, message, timeout=30)
            except PeerLostError:
                self.outcomes["reported"] += 1
            else:
                self.outcomes["delivered"] += 1
                victim.note(number, "acknowledged")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _judge(self, sizes: list[tuple[float, int]]) -> bool:
        self.wrong += self.inbox.wrong
        for victim in self.victims:
            self.wrong += victim.wrong
            self.wrong += [
                f"message {n} was acknowledged and did not arrive" for n in victim.missing
            ]
        # Quarters against each other, by their medians: payloads come and go.
        end = sizes[-1][0]
        third = [size for passed, size in sizes if end / 2 <= passed < 3 * end / 4]
        fourth = [size for passed, size in sizes if passed >= 3 * end / 4]
        growth = (statistics.median(fourth) - statistics.median(third or fourth)) / (end / 4 / 60)
        print(f"memory in the second half: {growth / 2**20:+.2f} MiB a minute")
        if end > 240 and growth > ALLOWED_BYTES_PER_MINUTE:
            self.wrong.append("the memory grows")
        for problem in self.wrong[:20]:
            print(f"WRONG: {problem}")
        print("nothing wrong" if not self.wrong else f"{len(self.wrong)} things wrong")
        return not self.wrong


def main() -> int:
    """Soak, or be a child."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", default="ucx")
    parser.add_argument("--child", choices=tuple(CHILDREN))
    parser.add_argument("--place", default="")
    arguments = parser.parse_args()
    if arguments.child:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        asyncio.run(child(arguments.child, arguments.backend, arguments.place))
        return 0
    soak = Soak(arguments.backend, arguments.seed)
    return 0 if asyncio.run(soak.run(arguments.minutes * 60)) else 1


if __name__ == "__main__":
    sys.exit(main())
