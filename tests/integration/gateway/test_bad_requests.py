"""Requests that are refused: which field, why, and without an effect on anyone."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import pytest
from gatewaykit.pipeline import MEDIA
from google.protobuf.duration_pb2 import Duration
from PIL import Image
from postgres_server import PostgresServer

from disagfusion.errors import InvalidArgumentError, NotFoundError, UnimplementedError
from disagfusion.v1 import generation_pb2 as pb


def encoded(format: str = "PNG", size: tuple[int, int] = (8, 8)) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, "red").save(buffer, format)
    return buffer.getvalue()


def bomb() -> bytes:
    """A small file that says it is a picture of ten gigapixels."""
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    length, check = struct.pack(">I", len(header)), struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + length + chunk + check + encoded()[33:]


def image(content: bytes, name: str = "") -> pb.InputImage:
    return pb.InputImage(name=name, content=content)


def text(value: str) -> pb.ParameterValue:
    return pb.ParameterValue(string_value=value)


def nested(depth: int) -> pb.ParameterValue:
    value = pb.ParameterValue(int_value=1)
    for _ in range(depth):
        value = pb.ParameterValue(list_value=pb.ParameterList(values=[value]))
    return value


BAD = [
    ("height", {"height": 63}, "a multiple of 16"),
    ("height", {"height": 0}, "1 to"),
    ("width", {"width": -16}, "1 to"),
    ("width", {"width": 2**31 - 16}, "1 to"),
    ("num_inference_steps", {"num_inference_steps": -1}, "1 to"),
    ("num_inference_steps", {"num_inference_steps": 0}, "1 to"),
    ("num_images_per_prompt", {"num_images_per_prompt": 10_000}, "1 to"),
    ("guidance_scale", {"guidance_scale": float("nan")}, "0 to"),
    ("guidance_scale", {"guidance_scale": float("inf")}, "0 to"),
    ("num_frames", {"num_frames": 5}, "one of"),
    ("prompt", {"prompt": ""}, "some text"),
    ("prompt", {"prompt": "  \n"}, "some text"),
    ("prompt", {"prompt": "x" * 2**20}, "at most"),
    ("negative_prompt", {"negative_prompt": "x" * 2**20}, "at most"),
    ("no_such", {"parameters": {"no_such": text("x")}}, "one of"),
    ("height", {"parameters": {"height": text("64")}}, "that field"),
    ("prompt", {"parameters": {"prompt": text("x")}}, "that field"),
    ("max_sequence_length", {"parameters": {"max_sequence_length": text("x")}}, "an integer"),
    ("deep", {"parameters": {"deep": nested(20)}}, "levels"),
    ("empty", {"parameters": {"empty": pb.ParameterValue()}}, "a value"),
    ("parameters", {"parameters": {f"p{n}": text("x") for n in range(100)}}, "at most"),
    ("output_format", {"output_format": pb.OUTPUT_FORMAT_MP4}, "PNG or JPEG or WEBP"),
    ("output_format", {"output_format": 99}, "PNG or JPEG or WEBP"),
    ("image", {"images": [image(b"")]}, "a PNG, JPEG or WebP image"),
    ("image", {"images": [image(b"rubbish" * 100)]}, "a PNG, JPEG or WebP image"),
    ("image", {"images": [image(encoded()[:50])]}, "a PNG, JPEG or WebP image"),
    ("image", {"images": [image(encoded("JPEG", (64, 64))[:-200])]}, "a PNG, JPEG or WebP"),
    ("image", {"images": [image(encoded("GIF"))]}, "a PNG, JPEG or WebP image"),
    ("image", {"images": [image(bomb())]}, "pixels"),
    ("image", {"images": [image(b"x" * (17 * 2**20))]}, "at most"),
    ("mask_image", {"images": [image(encoded(), "mask_image")]}, "one of"),
    ("images", {"images": [image(encoded())] * 9}, "at most 8"),
    ("images", {"images": [image(b"x" * (127 * 2**17))] * 4}, "at most 66060288"),
    ("priority", {"priority": 101}, "-100 to 100"),
    ("priority", {"priority": -101}, "-100 to 100"),
    ("timeout", {"timeout": Duration()}, "more than 0"),
    ("timeout", {"timeout": Duration(seconds=-5)}, "more than 0"),
    ("timeout", {"timeout": Duration(seconds=10**10)}, "at most"),
    ("client_request_id", {"client_request_id": "x" * 129}, "at most 128"),
    ("client_request_id", {"client_request_id": "with\0NUL"}, "without NUL"),
]


async def test_bad_requests_are_refused_and_cost_nobody_anything(bench: Any) -> None:
    stages, gateway, api = await bench.running()
    gate = stages["dit-0"].hold("step")
    innocent = await api.submit()
    await gate.reached.wait()
    for field, request, expected in BAD:
        with pytest.raises(InvalidArgumentError) as caught:
            await api.submit(**request)
        assert caught.value.field == field
        assert expected in caught.value.expected
        assert len(str(caught.value)) < 2000
    with pytest.raises(UnimplementedError, match="adapters"):
        await api.submit(adapters=[pb.Adapter(id="style", scale=1.0)])
    refused = "disagfusion_jobs_refused_total"
    assert gateway.metric(refused, reason="INVALID_ARGUMENT") == len(BAD)
    assert len((await api.list()).jobs) == 1
    stages["dit-0"].release_all()
    assert (await api.end_of(innocent.job_id)).state == pb.JOB_STATE_SUCCEEDED
    assert await api.fetch(innocent.job_id) == MEDIA
    assert stages["encoder-0"].counts["assigned"] == 1


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP"])
async def test_good_images_are_accepted(bench: Any, format: str) -> None:
    _, _, api = await bench.running()
    job = await api.submit(images=[image(encoded(format))])
    assert (await api.end_of(job.job_id)).state == pb.JOB_STATE_SUCCEEDED


async def test_the_largest_request_reaches_every_stage(bench: Any) -> None:
    stages, _, api = await bench.running()
    padded = encoded().ljust(63 * 2**18 - 64, b"x")
    job = await api.submit(images=[image(padded)] * 4)
    end = await api.end_of(job.job_id)
    assert (end.state, end.attempt) == (pb.JOB_STATE_SUCCEEDED, 1)
    assert [stage.counts["hellos"] for stage in stages.by_name.values()] == [1, 1, 1]


@pytest.mark.parametrize("job_id", ["", "\0", "x" * 65, "a job", "né"])
async def test_what_is_no_jobs_id_is_not_asked_for(
    bench: Any, postgres: PostgresServer, job_id: str
) -> None:
    _, gateway, api = await bench.running(database=postgres.database())
    asked = []
    jobs = gateway.gateway._store

    async def ask(*args: Any, **_: Any) -> None:
        asked.append(args)

    jobs.get = jobs.events = ask
    with pytest.raises(NotFoundError, match="there is no job"):
        await api.get(job_id)
    with pytest.raises(NotFoundError, match="there is no job"):
        await api.cancel(job_id)
    with pytest.raises(NotFoundError, match="there is no job"):
        await api.fetch(job_id)
    with pytest.raises(NotFoundError, match="there is no job"):
        async for _ in api.watch(job_id):
            pass
    assert asked == []
