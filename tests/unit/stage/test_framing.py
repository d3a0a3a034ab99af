from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disagfusion.stage.framing import MAX_FRAME_BYTES, Decoder, FramingError, encode
from disagfusion.v1 import engine_pb2

messages = st.builds(
    lambda run, text: engine_pb2.EngineRequest(
        space=engine_pb2.GiveSpace(run_id=run, offset=-1, reason=text)
    ),
    st.integers(0, 2**40),
    st.text(max_size=200),
)


@given(st.lists(messages, max_size=8), st.lists(st.integers(1, 50), min_size=1))
def test_messages_survive_any_fragmentation(
    sent: list[engine_pb2.EngineRequest], cuts: list[int]
) -> None:
    data = b"".join(encode(message) for message in sent)
    decoder = Decoder(engine_pb2.EngineRequest)
    got = []
    while data:
        cut = cuts[len(got) % len(cuts)]
        got += decoder.feed(data[:cut])
        data = data[cut:]
    assert got == sent


@given(st.binary(min_size=4, max_size=200))
def test_garbage_is_refused_or_waits_for_more(data: bytes) -> None:
    decoder = Decoder(engine_pb2.EngineRequest)
    try:
        list(decoder.feed(data))
    except FramingError:
        return
    # What was taken for messages was a prefix of what came; nothing is buffered without bound.
    list(Decoder(engine_pb2.EngineRequest).feed(data))


def test_a_length_beyond_the_bound_is_refused_before_anything_is_kept() -> None:
    decoder = Decoder(engine_pb2.EngineRequest)
    with pytest.raises(FramingError):
        list(decoder.feed((MAX_FRAME_BYTES + 1).to_bytes(4, "big")))


def test_a_message_beyond_the_bound_is_not_sent() -> None:
    run = engine_pb2.RunStage(input=engine_pb2.RunInput(structure=bytes(MAX_FRAME_BYTES)))
    with pytest.raises(FramingError):
        encode(engine_pb2.EngineRequest(run=run))
