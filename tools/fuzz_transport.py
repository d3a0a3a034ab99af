"""Feed mutated frames to the tensor wire format: refused as malformed, or consistent, never more.

    python tools/fuzz_transport.py [--count 1000000] [--seed 0]

Every frame that gets through is put to the receiving end of a connection, too, which must admit or
refuse it. Address space is limited meanwhile, so that a length which is believed too early ends the
run. The exit status is 1, and the case is printed, if anything but that happens.
"""

from __future__ import annotations

import argparse
import resource
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

from disagfusion.transport.address import StreamAddress
from disagfusion.transport.api import MessageHeader, RefusalReason, TensorInfo
from disagfusion.transport.frame import (
    PREFIX_SIZE,
    Frame,
    Hello,
    Kind,
    Offer,
    decode,
    decode_data,
    decode_digests,
    decode_hello,
    decode_offer,
    decode_prefix,
    decode_refusal,
    encode,
    encode_data,
    encode_digests,
    encode_hello,
    encode_offer,
    encode_refusal,
)
from disagfusion.transport.inbound import Receiver
from disagfusion.transport.session import Ledger
from disagfusion.transport.settings import NullObserver
from disagfusion.transport.wire import MalformedError

SPARE_BYTES = 64 << 20
MAX_MESSAGE = 1 << 16
_NUMBERS = (0, 1, 2, 63, 64, 65, 127, 128, 255, 256, 2**16 - 1, 2**31, 2**32 - 1, 2**48, 2**63)

DECODERS: dict[Kind, Callable[[bytes], object]] = {
    Kind.HELLO: decode_hello,
    Kind.WELCOME: decode_hello,
    Kind.HEADER: decode_offer,
    Kind.EAGER: decode_offer,
    Kind.DATA: decode_data,
    Kind.DIGEST: decode_digests,
    Kind.NACK: decode_refusal,
    # A beat says nothing; here it stands for an address, which is not sent in a frame.
    Kind.BEAT: StreamAddress.decode,
}


def offer(tensors: int, structure: int) -> Offer:
    """Return an honest offer of so many tensors of 64 bytes."""
    infos = tuple(
        TensorInfo(f"tensor{index}.é", "bfloat16", (2, 4, 4), (0, 2, 1), 64 * index, 64)
        for index in range(tensors)
    )
    header = MessageHeader(
        message_id="17",
        job_id="9f" * 16,
        attempt=1,
        port="dit",
        grant_id="5e" * 16,
        sender="sender",
        source_stage="encoder",
        source_attempt=1,
        tensors=infos,
        structure=b"{" + b" " * structure + b"}",
        nbytes=64 * tensors,
        traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    )
    return Offer(header, (64,) * tensors, 30.0)


def corpus() -> list[Frame]:
    """Return honest frames to begin with."""
    hello = Hello("sender", "receiver", b"t" * 16, "ucx", b"greeting" * 40)
    address = StreamAddress("host.example", 7000, b"t" * 16, True, b"extra" * 8).encode()
    return [
        *(Frame(Kind.HEADER, 1, encode_offer(offer(n, 8 * n))) for n in (0, 1, 2, 5, 40)),
        Frame(Kind.EAGER, 1, encode_offer(offer(3, 8))),
        Frame(Kind.HELLO, 0, encode_hello(hello)),
        Frame(Kind.WELCOME, 0, encode_hello(hello)),
        Frame(Kind.DATA, 1, encode_data(3, 4 << 20)),
        Frame(Kind.DIGEST, 1, encode_digests(tuple(range(20)))),
        Frame(Kind.NACK, 1, encode_refusal(RefusalReason.STALE, "the attempt is superseded")),
        Frame(Kind.BEAT, 1, address),
    ]


def mutate(raw: bytes, other: bytes, random: Random) -> bytes:
    """Return bytes with one to four things wrong."""
    data = bytearray(raw)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(data) + 1)
        match random.randrange(7):
            case 0 if at < len(data):
                data[at] ^= 1 << random.randrange(8)
            case 1 if at < len(data):
                data[at] = random.choice((0, 1, 0x7F, 0x80, 0xFF))
            case 2:
                del data[at:]
            case 3:
                del data[at : at + random.randint(1, 16)]
            case 4:
                data[at:at] = random.randbytes(random.randint(1, 16))
            case 5:
                start = random.randrange(len(other) + 1)
                data[at:at] = other[start : start + random.randint(1, 64)]
            case _:
                number = random.choice(_NUMBERS) + random.randint(-1, 1)
                form = random.choice(("<H", "<I", "<Q"))
                packed = struct.pack(form, number % (1 << 8 * struct.calcsize(form)))
                data[at : at + len(packed)] = packed
    return bytes(data)


class _Inbox:
    """Admits what is small enough."""

    def admit(self, header: MessageHeader) -> memoryview:
        return memoryview(bytearray(header.nbytes))

    def delivered(self, header: MessageHeader, seconds: float) -> None:
        pass

    def dropped(self, header: MessageHeader, reason: str) -> None:
        pass


def feed(raw: bytes) -> str:
    """Put bytes to the decoder of a whole frame and to what follows; return what came of it."""
    try:
        frame = decode(decode_prefix(raw[:PREFIX_SIZE]), raw[PREFIX_SIZE:])
    except MalformedError:
        return "not a frame"
    try:
        said = DECODERS.get(frame.kind, bytes)(frame.body)
    except MalformedError:
        return "not a message"
    if isinstance(said, Offer):
        receiver = Receiver(
            _Inbox(),
            Ledger(),
            sender="sender",
            observer=NullObserver(),
            transport="fuzz",
            max_bytes=MAX_MESSAGE,
            max_seconds=10.0,
        )
        answer = receiver.offered(frame.stream, said, 0.0)
        if answer.kind is Kind.READY:
            if sum(view.nbytes for view in receiver.views) != said.header.nbytes:
                raise AssertionError("the views are not the payload")
            return "admitted"
        decode_refusal(answer.body)
        return "refused"
    return "read"


def fuzz(count: int, seed: int) -> Counter[str]:
    """Feed so many cases; return how often what came of them.

    Raises:
        RuntimeError: Anything but a refusal happened; the message says to what.
    """
    random, frames, outcomes = Random(seed), corpus(), Counter[str]()
    for number in range(count):
        frame, other = random.choice(frames), random.choice(frames)
        if number % 4:
            # With a right checksum, or nothing would reach what is behind it.
            body = mutate(frame.body, other.body, random)
            raw = encode(Frame(frame.kind, frame.stream, body))
        else:
            raw = mutate(encode(frame), encode(other), random)
        try:
            outcomes[feed(raw)] += 1
        except Exception as error:
            case = f"case {number} of seed {seed}, {frame.kind.name}: {raw.hex()}"
            raise RuntimeError(case) from error
    return outcomes


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> int:
    """Fuzz and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    _limit_memory()
    begin = time.monotonic()
    outcomes = fuzz(arguments.count, arguments.seed)
    print(f"{outcomes.total():,} mutated frames in {time.monotonic() - begin:.0f} s")
    for outcome, count in outcomes.most_common():
        print(f"{count:>10,} {outcome}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory {peak:.0f} MiB, {SPARE_BYTES >> 20} MiB above the start were allowed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
