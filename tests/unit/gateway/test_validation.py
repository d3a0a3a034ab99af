"""What is judged of a request, and how much of that at a time."""

from __future__ import annotations

import asyncio
import threading
from unittest.mock import Mock

import pytest
from disagfusion_gateway import validation
from disagfusion_gateway.validation import ImageLimits, check_generation
from disagfusion_gateway.worker_messages import assignment_message

from disagfusion.dispatch.actions import Assign
from disagfusion.errors import InvalidArgumentError
from disagfusion.jobs.model import InputImage, Stage
from disagfusion.rpc.channel import MAX_MESSAGE_BYTES
from disagfusion.v1 import generation_pb2 as pb

LIMITS = ImageLimits(8, 2**24, 2**26)


async def test_what_a_worker_is_given_is_no_larger_than_a_message() -> None:
    generation = pb.Generation(prompt="x", seed=2**63 - 1)
    for _ in range(4):
        generation.images.add(content=b"x" * (63 * 2**18))
    with pytest.raises(InvalidArgumentError) as caught:
        await check_generation(generation, Mock(), LIMITS)
    assert (caught.value.field, caught.value.expected) == ("images", "at most 66060288")
    images = [InputImage("image", image.content) for image in generation.images]
    generation.ClearField("images")
    message = assignment_message(
        Assign("w" * 64, "i" * 32, "j" * 32, 99, Stage.ENCODER, "g" * 32, None),
        generation=generation.SerializeToString(),
        images=images,
        deadline=2e9,
        traceparent="t" * 55,
        tenant="t" * 63,
    )
    assert message.ByteSize() < MAX_MESSAGE_BYTES


async def test_two_images_are_decoded_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    lock, two, go_on = threading.Lock(), threading.Event(), threading.Event()
    decoding, most = 0, 0

    def decode(name: str, content: bytes, limits: ImageLimits) -> None:
        nonlocal decoding, most
        with lock:
            decoding += 1
            most = max(most, decoding)
            if decoding == 2:
                two.set()
        go_on.wait(10.0)
        with lock:
            decoding -= 1

    monkeypatch.setattr(validation, "_check_image", decode)
    generation = pb.Generation(prompt="x", images=[pb.InputImage(content=b"x")])
    calls = [asyncio.create_task(check_generation(generation, Mock(), LIMITS)) for _ in range(4)]
    await asyncio.to_thread(two.wait, 10.0)
    # Whoever goes away leaves nothing behind that would be decoded beside the others.
    calls.pop().cancel()
    calls.append(asyncio.create_task(check_generation(generation, Mock(), LIMITS)))
    await asyncio.to_thread(lambda: None)
    go_on.set()
    await asyncio.gather(*calls)
    assert most == 2
