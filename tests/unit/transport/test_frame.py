from __future__ import annotations

import struct
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from disagfusion.transport.address import StreamAddress
from disagfusion.transport.api import MessageHeader, RefusalReason, TensorInfo
from disagfusion.transport.dtypes import BY_CODE, BY_NAME
from disagfusion.transport.frame import (
    MAX_BODY,
    MAX_SEGMENTS,
    PREFIX_SIZE,
    VERSION,
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
from disagfusion.transport.wire import MAX_DIMENSIONS, MAX_TENSORS, MalformedError

texts = st.text(max_size=16).filter(lambda text: len(text.encode()) <= 64)
frames = st.builds(
    Frame, st.sampled_from(Kind), st.integers(0, 2**32 - 1), st.binary(max_size=2000)
)


@st.composite
def tensor_lists(draw: st.DrawFn) -> tuple[tuple[TensorInfo, ...], int]:
    infos, offset = [], 0
    for index in range(draw(st.integers(0, 5))):
        shape = tuple(draw(st.lists(st.integers(0, 7), max_size=MAX_DIMENSIONS)))
        dtype = draw(st.sampled_from(sorted(BY_NAME)))
        nbytes = BY_NAME[dtype].itemsize
        for size in shape:
            nbytes *= size
        order = tuple(draw(st.permutations(range(len(shape)))))
        offset += 64 * draw(st.integers(0, 2))
        infos.append(TensorInfo(f"t{index}·é", dtype, shape, order, offset, nbytes))
        offset += -(-nbytes // 64) * 64
    return tuple(infos), offset + draw(st.integers(0, 100))


@st.composite
def offers(draw: st.DrawFn) -> Offer:
    tensors, nbytes = draw(tensor_lists())
    header = MessageHeader(
        message_id=draw(texts.filter(bool)),
        job_id=draw(texts),
        attempt=draw(st.integers(0, 2**32 - 1)),
        port=draw(texts),
        grant_id=draw(texts),
        sender=draw(texts),
        source_stage=draw(texts),
        source_attempt=draw(st.integers(0, 2**32 - 1)),
        tensors=tensors,
        structure=draw(st.binary(max_size=500)),
        nbytes=nbytes,
        traceparent=draw(texts),
    )
    half = nbytes // 2
    segments = tuple(size for size in (half, nbytes - half) if size)
    return Offer(header, segments, draw(st.floats(0.001, 1e6)))


SAMPLE = Offer(
    MessageHeader(
        message_id="m",
        job_id="j",
        attempt=1,
        port="dit",
        grant_id="g",
        sender="s",
        source_stage="encoder",
        source_attempt=1,
        tensors=(
            TensorInfo("a", "bfloat16", (2, 3), (0, 1), 0, 12),
            TensorInfo("b", "float32", (), (), 64, 4),
        ),
        structure=b"{}",
        nbytes=68,
    ),
    (68,),
    1.0,
)


def reread(raw: bytes) -> Frame:
    return decode(decode_prefix(raw[:PREFIX_SIZE]), raw[PREFIX_SIZE:])


@given(frames)
def test_frames_survive(frame: Frame) -> None:
    assert reread(encode(frame)) == frame


@given(offers())
@settings(max_examples=150)
def test_offers_survive(offer: Offer) -> None:
    assert decode_offer(encode_offer(offer)) == offer


@given(
    st.builds(
        Hello,
        incarnation=texts,
        expected=texts,
        token=st.binary(max_size=64),
        backend=st.sampled_from(["tcp", "ucx"]),
        greeting=st.binary(max_size=1000),
    )
)
def test_hellos_survive(hello: Hello) -> None:
    assert decode_hello(encode_hello(hello)) == hello


@given(st.lists(st.integers(0, 2**64 - 1), max_size=50).map(tuple))
def test_digests_survive(digests: tuple[int, ...]) -> None:
    assert decode_digests(encode_digests(digests)) == digests


def test_small_bodies_survive() -> None:
    assert decode_data(encode_data(7, 2**40)) == (7, 2**40)
    assert decode_refusal(encode_refusal(RefusalReason.STALE, "é" * 600)) == (
        RefusalReason.STALE,
        "é" * 500,
    )
    address = StreamAddress("host", 1234, b"t" * 16, True, b"extra")
    assert StreamAddress.decode(address.encode()) == address


@given(frames, st.data())
def test_any_flipped_bit_is_found(frame: Frame, data: st.DataObject) -> None:
    raw = bytearray(encode(frame))
    bit = data.draw(st.integers(0, len(raw) * 8 - 1))
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(MalformedError):
        reread(bytes(raw))


@given(frames, st.data())
def test_any_truncation_is_found(frame: Frame, data: st.DataObject) -> None:
    raw = encode(frame)
    with pytest.raises(MalformedError):
        reread(raw[: data.draw(st.integers(0, len(raw) - 1))])


@given(st.binary(max_size=300))
@settings(max_examples=200)
def test_random_bytes_are_malformed_and_nothing_else(raw: bytes) -> None:
    for decoder in (
        decode_offer,
        decode_hello,
        decode_digests,
        decode_data,
        decode_refusal,
        StreamAddress.decode,
        decode_prefix,
        lambda data: reread(data[:PREFIX_SIZE].ljust(PREFIX_SIZE)),
    ):
        try:
            decoder(raw)
        except MalformedError:
            continue


@given(offers(), st.data())
@settings(max_examples=150)
def test_a_damaged_offer_is_malformed_or_consistent(offer: Offer, data: st.DataObject) -> None:
    raw = bytearray(encode_offer(offer))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        damaged = decode_offer(bytes(raw))
    except MalformedError:
        return
    # Whatever was let through can be written again: it kept every bound.
    assert decode_offer(encode_offer(damaged)) == damaged


def changed(**changes: object) -> Offer:
    return replace(SAMPLE, header=replace(SAMPLE.header, **changes))


def with_tensor(**changes: object) -> Offer:
    first, second = SAMPLE.header.tensors
    return changed(tensors=(replace(first, **changes), second))


@pytest.mark.parametrize(
    "offer",
    [
        changed(message_id=""),
        changed(message_id="x" * 65),
        changed(job_id="é" * 33),
        changed(grant_id="x" * 65),
        changed(sender="x" * 129),
        changed(attempt=-1),
        changed(attempt=2**32),
        changed(structure=b"x" * ((1 << 20) + 1)),
        changed(nbytes=-1),
        changed(nbytes=67),
        changed(nbytes=2**48 + 1),
        changed(job_id="\ud800"),
        changed(tensors=SAMPLE.header.tensors[::-1]),
        changed(tensors=SAMPLE.header.tensors[:1] * (MAX_TENSORS + 1)),
        with_tensor(name="b"),
        with_tensor(name="x" * 257),
        with_tensor(dtype="object"),
        with_tensor(dtype="float"),
        with_tensor(shape=(2, 4)),
        with_tensor(shape=(-2, -3)),
        with_tensor(shape=(2**49, 0), nbytes=0),
        with_tensor(shape=(1,) * 9, stride_order=tuple(range(9)), nbytes=2),
        with_tensor(stride_order=(0, 0)),
        with_tensor(stride_order=(0,)),
        with_tensor(stride_order=(0, 2)),
        with_tensor(offset=2),
        with_tensor(offset=-64),
        with_tensor(offset=64),
        with_tensor(nbytes=11),
        replace(SAMPLE, segments=(67,)),
        replace(SAMPLE, segments=(68, 0)),
    ],
)
def test_an_inconsistent_header_is_not_written(offer: Offer) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        encode_offer(offer)


def test_bounds_are_checked_before_anything_is_made() -> None:
    body = bytearray(encode_offer(SAMPLE))
    # The count of segments, right behind the duration.
    body[8:12] = struct.pack("<I", 2**32 - 1)
    with pytest.raises(MalformedError, match=f"at most {MAX_SEGMENTS}"):
        decode_offer(bytes(body))
    head = struct.pack("<4sBBHIIQ", b"DFT1", VERSION, 3, 0, 1, MAX_BODY + 1, 0)
    with pytest.raises(MalformedError, match=f"{MAX_BODY} are allowed"):
        decode_prefix(head)
    with pytest.raises(MalformedError, match="a body of"):
        encode(Frame(Kind.HEADER, 0, b"x" * (MAX_BODY + 1)))


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ((b"HTTP", 1, 1, 0), "not this protocol"),
        ((b"DFT1", VERSION + 1, 1, 0), f"version {VERSION + 1}"),
        ((b"DFT1", VERSION, 0, 0), "unknown kind"),
        ((b"DFT1", VERSION, 99, 0), "unknown kind"),
        ((b"DFT1", VERSION, 1, 1), "unknown kind"),
    ],
)
def test_prefixes_of_others(head: tuple[bytes, int, int, int], message: str) -> None:
    with pytest.raises(MalformedError, match=message):
        decode_prefix(struct.pack("<4sBBHIIQ", *head, 0, 0, 0))


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
def test_durations_that_are_none(seconds: float) -> None:
    with pytest.raises(MalformedError, match="duration"):
        decode_offer(encode_offer(replace(SAMPLE, seconds=seconds)))


def test_the_largest_offer_fits_a_frame() -> None:
    tensors = tuple(
        TensorInfo(f"{index:04}".ljust(256, "x"), "uint8", (1,) * 8, tuple(range(8)), 64 * index, 1)
        for index in range(MAX_TENSORS)
    )
    nbytes = 64 * MAX_TENSORS
    offer = replace(
        SAMPLE,
        header=replace(SAMPLE.header, tensors=tensors, structure=b"x" * (1 << 20), nbytes=nbytes),
        segments=(1,) * (MAX_SEGMENTS - 1) + (nbytes - MAX_SEGMENTS + 1,),
    )
    assert reread(encode(Frame(Kind.HEADER, 1, encode_offer(offer)))).body == encode_offer(offer)


def test_the_format_does_not_change_unnoticed() -> None:
    assert encode(Frame(Kind.HEADER, 5, encode_offer(SAMPLE))).hex() == (
        "44465431020300000500000086000000aeaeab3922821b34000000000000f03f0100000044000000"
        "0000000001006d01006a03006469740100670100730700656e636f64657200000100000001000000"
        "4400000000000000020000007b7d0200000001006111020200000000000000030000000000000000"
        "0100000000000000000c00000000000000010062120040000000000000000400000000000000"
    )


def test_every_dtype_has_one_code_and_one_name() -> None:
    assert len(BY_CODE) == len(BY_NAME)
    assert all(BY_CODE[dtype.code] == dtype for dtype in BY_NAME.values())
