"""Many senders, one port, any order of their steps: nothing lost, nothing twice.

The same property is put to the ring that is usually built for this, in which each sender reads the
tail, writes the slot and publishes the new tail. It is the negative control: a property that it
passed would prove nothing.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Protocol

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from disagfusion.stage.inputs import InputSlots
from disagfusion.transport.testing import make_message

SENDERS = 3
EACH = 3
SLOTS = 2
CONSUMER = SENDERS

schedules = st.lists(st.integers(0, CONSUMER), max_size=60)


class Port(Protocol):
    """What is put to the test. Between two yields of a sender anybody else may run."""

    def send(self, message: int) -> Iterator[None]: ...

    def receive(self) -> int | None: ...


class GrantedPort:
    """A port of ours: a slot is filled by right of a grant, which the gateway gives to one."""

    def __init__(self) -> None:
        ids = count()
        self._slots = InputSlots(SLOTS, 64, lambda: str(next(ids)))
        self._memory = [0] * SLOTS
        self._offered = deque(self._slots.issue("gateway", 0.0).grant_id for _ in range(SLOTS))
        self._filled: deque[str] = deque()

    def send(self, message: int) -> Iterator[None]:
        while not self._offered:
            yield
        grant = self._offered.popleft()
        yield
        header = make_message([b"x"], sender="s", message_id=str(message), grant_id=grant).header
        place = self._slots.admit(header, 0.0) // 64
        yield
        self._memory[place] = message
        yield
        self._slots.filled(grant, 0.0, 0.0)
        self._filled.append(grant)

    def receive(self) -> int | None:
        if not self._filled:
            return None
        slot = self._slots.get(self._filled.popleft())
        assert slot is not None
        message = self._memory[self._slots.offset(slot) // 64]
        self._slots.release(slot)
        self._offered.append(self._slots.issue("gateway", 0.0).grant_id)
        return message


class RingPort:
    """The classic ring, written for one sender and used by many."""

    def __init__(self) -> None:
        self._memory = [0] * SLOTS
        self._head = self._tail = 0

    def send(self, message: int) -> Iterator[None]:
        while True:
            tail = self._tail
            yield
            if tail - self._head < SLOTS:
                break
        self._memory[tail % SLOTS] = message
        yield
        self._tail = tail + 1

    def receive(self) -> int | None:
        if self._head >= self._tail:
            return None
        message = self._memory[self._head % SLOTS]
        self._head += 1
        return message


def received(port: Port, schedule: Sequence[int]) -> Counter[int]:
    """Let all take their steps in this order, then in turn to the end; return what came."""
    numbers = iter(range(SENDERS * EACH))
    waiting = [[next(numbers) for _ in range(EACH)] for _ in range(SENDERS)]
    sending: list[Iterator[None] | None] = [None] * SENDERS
    came: Counter[int] = Counter()

    def step(who: int) -> None:
        if who == CONSUMER:
            message = port.receive()
            came.update(() if message is None else (message,))
            return
        if sending[who] is None and waiting[who]:
            sending[who] = port.send(waiting[who].pop(0))
        current = sending[who]
        if current is not None and next(current, "sent") == "sent":
            sending[who] = None

    for who in schedule:
        step(who)
    # More turns than the longest way to the end has steps.
    for turn in range(SENDERS * EACH * 10 * (SENDERS + 1)):
        step(turn % (SENDERS + 1))
    assert not any(waiting)
    assert not any(sending)
    return came


ALL = Counter(range(SENDERS * EACH))


@given(schedules)
def test_nothing_is_lost_and_nothing_comes_twice(schedule: list[int]) -> None:
    assert received(GrantedPort(), schedule) == ALL


def test_the_classic_ring_fails_the_same_property() -> None:
    schedule = find(
        schedules,
        lambda candidate: received(RingPort(), candidate) != ALL,
        settings=settings(derandomize=True, database=None),
    )
    came = received(RingPort(), schedule)
    assert ALL - came, f"{schedule} loses nothing"


@pytest.mark.parametrize("port", [GrantedPort, RingPort])
def test_with_one_sender_at_a_time_both_lose_nothing(port: type[Port]) -> None:
    # Each sender's steps follow one another, with the consumer between them.
    schedule = [step for who in range(SENDERS) for _ in range(EACH * 6) for step in (who, CONSUMER)]
    assert received(port(), schedule) == ALL
