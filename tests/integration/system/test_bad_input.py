"""What is wrong is refused clearly and early, and costs nobody else anything."""

from __future__ import annotations

import contextlib
import io
import os
import socket
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image
from systemkit import PROMPTS, System

from disagfusion.errors import (
    FailedPreconditionError,
    InvalidArgumentError,
    NotFoundError,
)
from disagfusion.local import LocalRuntime


def png(width: int = 64, height: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (200, 30, 30)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def neighbour(system: System) -> Any:
    """A job that runs beside the bad request and must not notice it."""
    expected = system.submit(1, 50).result().outputs[0].content
    handle = system.submit(1, 50)
    yield handle
    assert handle.result().outputs[0].content == expected
    assert handle.refresh().attempt == 1


def say_garbage(host: str, port: int) -> None:
    for size in (1, 24, 1000, 100_000):
        with (
            socket.create_connection((host, port), timeout=10) as connection,
            contextlib.suppress(OSError),  # it may hang up at any byte
        ):
            connection.sendall(os.urandom(size))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(4096):
                pass


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("height", {"height": 65}),
        ("width", {"width": 1 << 20}),
        ("height", {"height": -64}),
        ("num_inference_steps", {"num_inference_steps": -1}),
        ("num_inference_steps", {"num_inference_steps": 0}),
        ("num_inference_steps", {"num_inference_steps": 1 << 30}),
        ("num_images_per_prompt", {"num_images_per_prompt": 100_000}),
        ("guidance_scale", {"guidance_scale": float("nan")}),
        ("prompt", {"prompt": ""}),
        ("prompt", {"prompt": "x" * (1 << 20)}),
        ("colour", {"parameters": {"colour": "red"}}),
        ("output_format", {"output_format": "mp4"}),
        ("image", {"image": png()[:-40]}),
        ("image", {"image": b"not a picture"}),
        ("priority", {"priority": 1000}),
        ("timeout", {"timeout": -1.0}),
    ],
)
def test_a_wrong_field_is_named(
    system: System, neighbour: object, field: str, options: dict[str, Any]
) -> None:
    values = {"prompt": PROMPTS[0], **options}
    with pytest.raises(InvalidArgumentError) as refusal:
        system.client.submit(values.pop("prompt"), **values)
    assert refusal.value.field == field
    assert len(str(refusal.value)) < 400


def test_an_unknown_job_is_not_found(system: System) -> None:
    with pytest.raises(NotFoundError):
        system.client.job("no-such-job").refresh()


def test_a_missing_model_directory(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="model"):
        LocalRuntime(model=tmp_path / "nowhere")


def test_a_port_in_use() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        host, port = taken.getsockname()
        runtime = LocalRuntime(listen=f"{host}:{port}")
        with pytest.raises(FailedPreconditionError, match="in use"):
            runtime.start()


def test_random_bytes_on_a_transports_port(system: System, neighbour: object) -> None:
    process = system.process("dit-0")
    metrics = int(process.metrics_address.rsplit(":", 1)[1])
    listening = {
        (connection.laddr.ip, connection.laddr.port)
        for connection in psutil.Process(process.pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN and connection.laddr.port != metrics
    }
    assert listening, "no port was tried"
    for address in listening:
        say_garbage(*address)
    assert system.process("dit-0").pid == process.pid


def test_random_bytes_on_the_gateways_port(system: System, neighbour: object) -> None:
    host, port = system.runtime.address.rsplit(":", 1)
    pid = system.process("gateway").pid
    say_garbage(host, int(port))
    assert system.process("gateway").pid == pid
