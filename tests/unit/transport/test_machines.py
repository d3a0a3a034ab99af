"""The two ends of a connection against each other, without a connection."""

from __future__ import annotations

from dataclasses import replace

import pytest
import xxhash
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from disagfusion.transport.api import Message, RefusalReason, RefusedError
from disagfusion.transport.frame import Frame, Kind, decode_digests, decode_offer, encode_refusal
from disagfusion.transport.inbound import Receiver
from disagfusion.transport.outbound import Outgoing, Phase, split
from disagfusion.transport.session import Ledger
from disagfusion.transport.testing import MemoryInbox, RecordingObserver, make_message
from disagfusion.transport.wire import MalformedError

PAYLOAD = bytes(range(200))


@pytest.fixture
def inbox() -> MemoryInbox:
    return MemoryInbox()


@pytest.fixture
def observer() -> RecordingObserver:
    return RecordingObserver()


@pytest.fixture
def receiver(inbox: MemoryInbox, observer: RecordingObserver) -> Receiver:
    return make_receiver(inbox, observer)


def make_receiver(
    inbox: MemoryInbox, observer: RecordingObserver, ledger: Ledger | None = None
) -> Receiver:
    return Receiver(
        inbox,
        ledger or Ledger(),
        sender="s",
        observer=observer,
        transport="test",
        max_bytes=1000,
        max_seconds=10.0,
    )


def make_outgoing(payload: bytes = PAYLOAD, *, stream: int = 1, message_id: str = "m") -> Outgoing:
    message = make_message([payload], sender="s", message_id=message_id)
    return Outgoing(message, stream=stream, segment_bytes=64, seconds=5.0)


def offer(receiver: Receiver, outgoing: Outgoing, now: float = 0.0) -> Frame:
    return receiver.offered(outgoing.stream, decode_offer(outgoing.offer.body), now)


def fill(receiver: Receiver, outgoing: Outgoing) -> list[int]:
    """Move the payload; return the checksums."""
    for source, target in zip(outgoing.segments, receiver.views, strict=True):
        target[:] = source
    return [xxhash.xxh3_64_intdigest(segment) for segment in outgoing.segments]


@pytest.mark.parametrize("announce_at", range(5))
def test_segments_and_checksums_in_any_order(
    receiver: Receiver, inbox: MemoryInbox, announce_at: int
) -> None:
    outgoing = make_outgoing()
    outgoing.answered(offer(receiver, outgoing))
    assert outgoing.phase is Phase.SENDING
    digests = fill(receiver, outgoing)
    answers = []
    for position in range(len(digests) + 1):
        if position == announce_at:
            frame = outgoing.sent(digests)
            answers.append(receiver.announced(decode_digests(frame.body), 2.0))
        if position < len(digests):
            index = (3, 1, 0, 2)[position]
            answers.append(receiver.segment(index, digests[index], 2.0))
    assert answers[:-1] == [None] * 4
    assert answers[-1] is not None
    outgoing.answered(answers[-1])
    assert outgoing.phase is Phase.DELIVERED
    assert inbox.messages["m"] == PAYLOAD
    assert not receiver.busy


def test_wrong_checksum(
    receiver: Receiver, inbox: MemoryInbox, observer: RecordingObserver
) -> None:
    outgoing = make_outgoing()
    outgoing.answered(offer(receiver, outgoing))
    digests = fill(receiver, outgoing)
    receiver.announced(decode_digests(outgoing.sent(digests).body), 1.0)
    for index in range(3):
        assert receiver.segment(index, digests[index], 1.0) is None
    answer = receiver.segment(3, digests[3] ^ 1, 1.0)
    assert answer is not None
    with pytest.raises(RefusedError) as caught:
        outgoing.answered(answer)
    assert caught.value.reason is RefusalReason.CHECKSUM
    assert inbox.drops == [("m", "the checksum is wrong")]
    assert observer.received_outcomes == {"checksum": 1}


def test_an_empty_payload(receiver: Receiver, inbox: MemoryInbox) -> None:
    outgoing = make_outgoing(b"")
    outgoing.answered(offer(receiver, outgoing))
    answer = receiver.announced(decode_digests(outgoing.sent([]).body), 1.0)
    assert answer == Frame(Kind.ACK, 1)
    assert inbox.messages["m"] == b""


def test_replays_of_what_is_under_way_and_of_what_came(
    inbox: MemoryInbox, observer: RecordingObserver
) -> None:
    ledger = Ledger()
    first, second = make_receiver(inbox, observer, ledger), make_receiver(inbox, observer, ledger)
    outgoing = make_outgoing()
    assert offer(first, outgoing).kind is Kind.READY
    assert offer(second, outgoing).kind is Kind.NACK
    first.lost("gone", 1.0)
    assert offer(second, outgoing).kind is Kind.READY
    digests = fill(second, outgoing)
    for index, digest in enumerate(digests):
        second.segment(index, digest, 1.0)
    assert second.announced(tuple(digests), 1.0) == Frame(Kind.ACK, 1)
    assert offer(first, outgoing).kind is Kind.NACK
    assert observer.received_outcomes == {"stale": 2, "lost": 1, "delivered": 1}


def test_a_message_has_until_the_shorter_of_two_limits(receiver: Receiver) -> None:
    offer(receiver, make_outgoing(), now=100.0)
    assert not receiver.expired(104.9)
    assert receiver.expired(105.0)
    receiver.lost("too late", 105.0)
    assert not receiver.expired(1000.0)
    patient = make_outgoing(message_id="patient")
    offered = replace(decode_offer(patient.offer.body), seconds=1e6)
    receiver.offered(1, offered, 0.0)
    assert receiver.expired(10.0)


def test_losing_nothing_changes_nothing(
    receiver: Receiver, inbox: MemoryInbox, observer: RecordingObserver
) -> None:
    receiver.lost("gone", 1.0)
    assert inbox.drops == []
    assert not observer.received_outcomes


def test_an_inbox_that_fails_leaves_no_trace(receiver: Receiver, inbox: MemoryInbox) -> None:
    class BrokenError(Exception):
        pass

    def broken(header: object) -> memoryview:
        raise BrokenError

    admit, inbox.admit = inbox.admit, broken  # type: ignore[assignment,method-assign]
    with pytest.raises(BrokenError):
        offer(receiver, make_outgoing())
    inbox.admit = admit  # type: ignore[method-assign]
    assert offer(receiver, make_outgoing()).kind is Kind.READY


@pytest.mark.parametrize("memory", [bytearray(199), bytearray(201), bytes(200)])
def test_an_inbox_that_gives_memory_that_does_not_fit(
    receiver: Receiver, inbox: MemoryInbox, memory: bytes
) -> None:
    inbox.admit = lambda header: memoryview(memory)  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="does not fit"):
        offer(receiver, make_outgoing())


def test_two_messages_at_once_on_one_connection(receiver: Receiver) -> None:
    offer(receiver, make_outgoing())
    with pytest.raises(MalformedError):
        offer(receiver, make_outgoing(stream=2, message_id="other"))


def test_checksums_of_something_else(receiver: Receiver) -> None:
    with pytest.raises(MalformedError):
        receiver.announced((1,), 0.0)
    offer(receiver, make_outgoing())
    with pytest.raises(MalformedError):
        receiver.announced((1, 2, 3), 0.0)
    receiver.announced((1, 2, 3, 4), 0.0)
    with pytest.raises(MalformedError):
        receiver.announced((1, 2, 3, 4), 0.0)


@pytest.mark.parametrize(
    "frame",
    [
        Frame(Kind.ACK, 1),
        Frame(Kind.READY, 2),
        Frame(Kind.WELCOME, 1),
        Frame(Kind.NACK, 2, encode_refusal(RefusalReason.STALE, "")),
        Frame(Kind.NACK, 1, b"?"),
    ],
)
def test_answers_that_make_no_sense(frame: Frame) -> None:
    with pytest.raises(MalformedError):
        make_outgoing().answered(frame)


def test_an_early_acknowledgement_is_not_believed() -> None:
    outgoing = make_outgoing()
    with pytest.raises(MalformedError):
        outgoing.sent([1])
    outgoing.answered(Frame(Kind.READY, 1))
    with pytest.raises(MalformedError):
        outgoing.answered(Frame(Kind.READY, 1))
    with pytest.raises(MalformedError):
        outgoing.answered(Frame(Kind.ACK, 1))


def eager() -> Outgoing:
    message = make_message([PAYLOAD], message_id="m", sender="s")
    return Outgoing(message, stream=1, segment_bytes=64, seconds=5, eager_bytes=len(PAYLOAD))


def test_a_small_payload_does_not_wait(receiver: Receiver, inbox: MemoryInbox) -> None:
    outgoing = eager()
    assert outgoing.offer.kind is Kind.EAGER
    assert offer(receiver, outgoing).kind is Kind.READY
    digests = fill(receiver, outgoing)
    for index, digest in enumerate(digests):
        receiver.segment(index, digest, 1.0)
    answer = receiver.announced(decode_digests(outgoing.sent(digests).body), 1.0)
    assert answer is not None
    outgoing.answered(answer)
    assert outgoing.phase is Phase.DELIVERED
    assert not outgoing.stray
    assert inbox.messages["m"] == PAYLOAD


def test_one_byte_more_waits() -> None:
    message = make_message([PAYLOAD], message_id="m", sender="s")
    kinds = {
        Outgoing(message, stream=1, segment_bytes=64, seconds=5, eager_bytes=most).offer.kind
        for most in (0, len(PAYLOAD) - 1)
    }
    assert kinds == {Kind.HEADER}


@pytest.mark.parametrize(
    ("reason", "stray"), [(RefusalReason.STALE, True), (RefusalReason.CHECKSUM, False)]
)
def test_a_small_payload_that_nobody_wanted(reason: RefusalReason, stray: bool) -> None:
    outgoing = eager()
    outgoing.sent([1, 2, 3, 4])
    with pytest.raises(MalformedError):
        outgoing.answered(Frame(Kind.READY, 1))
    with pytest.raises(RefusedError):
        outgoing.answered(Frame(Kind.NACK, 1, encode_refusal(reason, "no")))
    assert outgoing.stray is stray


def test_a_payload_that_is_not_what_the_header_says() -> None:
    message = make_message([b"x" * 10], sender="s")
    with pytest.raises(RefusedError) as caught:
        Outgoing(Message(message.header, ()), stream=1, segment_bytes=64, seconds=1)
    assert caught.value.reason is RefusalReason.MALFORMED


def test_split() -> None:
    buffers = [memoryview(b"abcdef"), memoryview(b""), memoryview(b"gh")]
    assert [bytes(piece) for piece in split(buffers, 4)] == [b"abcd", b"ef", b"gh"]
    wide = memoryview(bytearray(16)).cast("d")
    assert [piece.nbytes for piece in split([wide], 10)] == [10, 6]


class Conversation(RuleBasedStateMachine):
    """Any order of events, sensible or not: each message ends once, no memory is lent twice."""

    def __init__(self) -> None:
        super().__init__()
        self.inbox = MemoryInbox()
        self.observer = RecordingObserver()
        self.receiver = make_receiver(self.inbox, self.observer)
        self.number = 0
        self.offered = 0
        self.digests: list[int] = []
        self.seen: set[int] = set()

    @rule(repeat=st.booleans(), size=st.sampled_from([0, 1, 64, 200]))
    def offer(self, repeat: bool, size: int) -> None:
        self.number += 0 if repeat and self.number else 1
        outgoing = make_outgoing(PAYLOAD[:size], message_id=f"m{self.number}")
        if self.receiver.busy:
            with pytest.raises(MalformedError):
                offer(self.receiver, outgoing)
            return
        if offer(self.receiver, outgoing).kind is Kind.READY:
            self.offered += 1
            self.digests = fill(self.receiver, outgoing)
            self.seen = set()

    @precondition(lambda self: self.receiver.busy and len(self.seen) < len(self.digests))
    @rule(data=st.data(), damage=st.booleans())
    def segment(self, data: st.DataObject, damage: bool) -> None:
        left = sorted(set(range(len(self.digests))) - self.seen)
        index = data.draw(st.sampled_from(left))
        self.seen.add(index)
        self.receiver.segment(index, self.digests[index] ^ damage, 1.0)

    @precondition(lambda self: self.receiver.busy)
    @rule()
    def announce(self) -> None:
        try:
            self.receiver.announced(tuple(self.digests), 1.0)
        except MalformedError:
            assert self.receiver.busy

    @rule()
    def lose(self) -> None:
        self.receiver.lost("gone", 1.0)

    @invariant()
    def every_message_ends_once(self) -> None:
        ended = len(self.inbox.headers) + len(self.inbox.drops)
        assert self.inbox.filling == self.receiver.busy == self.offered - ended
        names = [header.message_id for header in self.inbox.headers]
        assert len(set(names)) == len(names)
        outcomes = self.observer.received_outcomes
        assert outcomes["delivered"] == len(names)
        assert outcomes["lost"] + outcomes["checksum"] == len(self.inbox.drops)
        assert bool(self.receiver.views) <= self.receiver.busy


TestConversation = Conversation.TestCase
