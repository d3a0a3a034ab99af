"""Hand-overs that take as long as over an emulated link; the clock is the test's."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from disagfusion.emulation.content import Content
from disagfusion.emulation.pacing import PacedInbox
from disagfusion.pipeline.stages import Stage
from disagfusion.transport import create
from disagfusion.transport.api import Message, MessageHeader, RefusalReason, RefusedError
from disagfusion.transport.testing import MemoryInbox

LENGTH = 1000


def header(number: int = 0, sender: str = "s", rate: float | None = 100.0) -> MessageHeader:
    content = Content("j", Stage.ENCODER, LENGTH, {"link_bytes_per_second": rate})
    return MessageHeader(
        message_id=str(number),
        job_id="j",
        attempt=1,
        port="dit",
        grant_id=f"{sender}{number}",
        sender=sender,
        source_stage="encoder",
        source_attempt=1,
        tensors=content.tensors,
        structure=content.structure,
        nbytes=LENGTH,
    )


class Bench:
    def __init__(self, own: float | None = None) -> None:
        self.now = 50.0
        self.inner = MemoryInbox()
        self.inbox = PacedInbox(self.inner, own, lambda: self.now)

    def due(self, *arguments: object, end: int = LENGTH) -> float:
        """When the first `end` bytes of a new message count as there, from now on."""
        memory = self.inbox.admit(header(*arguments))  # type: ignore[arg-type]
        self.memory = memory
        return self.inbox.due(memory[end - 100 : end]) - self.now


@pytest.mark.parametrize(
    ("own", "sender", "seconds"),
    [(None, 100.0, 10.0), (50.0, 100.0, 20.0), (200.0, 100.0, 10.0), (50.0, None, 20.0)],
)
async def test_the_slower_link_decides(own: float | None, sender: float, seconds: float) -> None:
    assert Bench(own).due(0, "s", sender) == pytest.approx(seconds)
    assert Bench(own).due(0, "s", sender, end=500) == pytest.approx(seconds / 2)


async def test_without_a_link_nothing_is_held_up() -> None:
    bench = Bench()
    assert bench.due(0, "s", None) < 0
    paced = Bench(100.0)
    paced.due(0)
    assert paced.inbox.due(memoryview(bytearray(10))) == 0
    assert paced.inbox.due(memoryview(b"read only")) == 0
    assert paced.inbox.due(memoryview(bytearray())) == 0


async def test_one_senders_messages_come_one_after_the_other() -> None:
    bench = Bench()
    assert bench.due(0, "s") == pytest.approx(10)
    bench.now += 4
    assert bench.due(1, "s") == pytest.approx(6 + 10)
    assert bench.due(2, "other") == pytest.approx(10)
    bench.now += 100
    assert bench.due(3, "s") == pytest.approx(10)


async def test_what_has_ended_holds_up_nothing() -> None:
    bench = Bench()
    bench.due(0)
    bench.inbox.delivered(header(0), 1.0)
    assert bench.inbox.due(bench.memory) == 0
    bench.due(1)
    bench.inbox.dropped(header(1), "lost")
    assert bench.inbox.due(bench.memory) == 0
    assert (list(bench.inner.messages), bench.inner.drops) == (["0"], [("1", "lost")])


async def test_messages_of_others_are_refused() -> None:
    bench = Bench()
    strange = dataclasses.replace(header(), structure=b'{"latents": {}}')
    with pytest.raises(RefusedError) as refused:
        bench.inbox.admit(strange)
    assert refused.value.reason is RefusalReason.MALFORMED
    assert bench.inner.filling == 0
    bench.inner.refuse = RefusedError(RefusalReason.STALE)
    with pytest.raises(RefusedError, match="stale"):
        bench.inbox.admit(header())


@pytest.mark.parametrize("rate", [0, -1.0, "fast"])
async def test_a_link_that_is_none_is_no_link(rate: float) -> None:
    assert Bench().due(0, "s", rate) < 0


async def test_a_real_hand_over_is_held_up() -> None:
    receiver, ignored = MemoryInbox(), MemoryInbox()
    loop = asyncio.get_running_loop()
    inbox = PacedInbox(receiver, None, loop.time)
    sent = header(rate=LENGTH / 0.2)
    content = bytes(range(250)) * 4
    async with (
        create("inproc", inbox, incarnation="r", hold=inbox.hold) as to,
        create("inproc", ignored, incarnation="s") as sender,
    ):
        message = Message(sent, (memoryview(content),))
        delivery = await sender.send(to.address, message, timeout=30)
    assert delivery.seconds >= 0.99 * 0.2
    assert receiver.messages == {"0": content}
