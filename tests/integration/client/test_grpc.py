"""The SDK over real gRPC."""

from __future__ import annotations

import os
import socket
import threading
from datetime import UTC, datetime

import pytest

from disagfusion.client import AsyncClient, Client, JobState, RetryPolicy, Stage
from disagfusion.errors import (
    AlreadyExistsError,
    FailedPreconditionError,
    InvalidArgumentError,
    JobCancelledError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from disagfusion.v1 import generation_pb2 as pb

from .conftest import CONTENT, PlayedGateway

QUICK = RetryPolicy(initial=0.01, maximum=0.05)


def test_a_generation_from_end_to_end(gateway: PlayedGateway, address: str) -> None:
    with Client(address, api_key="secret", retry=QUICK) as client:
        result = client.generate(
            "x", height=64, seed=2**64 - 1, timeout=1.5, image=b"png", strength=0.5, big=2**40
        )
    assert result.videos == [CONTENT]
    assert result.seed == 2**64 - 1
    assert result.job.submitted_at == datetime(2026, 1, 2, 3, 4, 5, 500_000, tzinfo=UTC)
    assert [(one.stage, one.transport) for one in result.stages] == [
        (Stage.DIT, "ucx/shm"),
        (Stage.DECODER, ""),
    ]
    request = gateway.requests[0]
    assert request.generation.height == 64
    assert not request.generation.HasField("width")
    assert request.generation.parameters["strength"].double_value == 0.5
    assert request.generation.parameters["big"].int_value == 2**40
    assert request.generation.images[0].content == b"png"
    assert request.timeout.ToMilliseconds() == 1500
    assert len(request.client_request_id) == 32
    assert {one["authorization"] for one in gateway.metadata} == {"Bearer secret"}


def test_broken_streams_are_resumed(gateway: PlayedGateway, address: str) -> None:
    gateway.break_watch_after = 2
    gateway.break_fetch_after = 100_000
    with Client(address, retry=QUICK) as client:
        handle = client.submit("x")
        assert [event.sequence for event in handle.events()] == [1, 2, 3, 4]
        assert handle.result().videos == [CONTENT]
    asked = [one for one in gateway.requests if isinstance(one, pb.WatchJobRequest)]
    assert [one.after_sequence for one in asked] == [0, 2]
    fetched = [one for one in gateway.requests if isinstance(one, pb.FetchOutputRequest)]
    assert [one.offset for one in fetched] == [0, 100_000]


def test_a_submission_is_repeated_and_honours_the_delay(
    gateway: PlayedGateway, address: str
) -> None:
    gateway.refusals += [
        UnavailableError("starting", retry_after=0.01),
        ResourceExhaustedError("the queue is full", retry_after=0.01),
    ]
    with Client(address, retry=QUICK) as client:
        client.submit("x")
    first, second, third = gateway.requests
    assert first == second == third


def test_errors_keep_their_class_and_details(gateway: PlayedGateway, address: str) -> None:
    with Client(address, retry=QUICK) as client:
        gateway.refusals.append(InvalidArgumentError("height", "is 3", expected="a multiple of 8"))
        with pytest.raises(InvalidArgumentError) as wrong:
            client.submit("x")
        assert (wrong.value.field, wrong.value.expected) == ("height", "a multiple of 8")
        gateway.refusals.append(AlreadyExistsError("used"))
        with pytest.raises(AlreadyExistsError):
            client.submit("x")
        with pytest.raises(NotFoundError, match="there is no job j2"):
            client.job("j2")
        gateway.state = pb.JOB_STATE_FAILED
        with pytest.raises(InvalidArgumentError, match="is damaged"):
            client.generate("x")
        gateway.state = pb.JOB_STATE_CANCELLED
        with pytest.raises(JobCancelledError):
            client.generate("x")


def test_jobs_and_pipeline(gateway: PlayedGateway, address: str) -> None:
    with Client(address) as client:
        assert len(list(client.jobs(states=[JobState.FAILED, JobState.EXPIRED]))) == 3
        assert list(gateway.requests[0].states) == [6, 8]
        pipeline = client.pipeline()
        assert (pipeline.name, pipeline.spec.family) == ("digits", "flux")
        assert client.job("j1").cancel().state is JobState.CANCELLED


def test_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with (
            Client(address, timeout=0.2, retry=QUICK) as client,
            pytest.raises(UnavailableError, match=f"cannot reach {address}: connection refused"),
        ):
            client.job("j1")


def test_two_clients_and_a_loop_in_one_process(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    def use() -> None:
        with Client(address) as client:
            for _ in range(30):
                client.generate("x")

    threads = [threading.Thread(target=use) for _ in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert caplog.records == []


def test_a_fork_is_refused_rather_than_crashed(address: str) -> None:
    with Client(address) as client:
        client.generate("x")
        child = os.fork()
        if child == 0:
            refused = 0
            for use in (lambda: client.generate("x"), lambda: Client(address)):
                try:
                    use()
                except FailedPreconditionError:
                    refused += 1
            os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2
        client.generate("x")


async def test_the_asynchronous_client(gateway: PlayedGateway, address: str) -> None:
    async with AsyncClient(address, retry=QUICK) as client:
        gateway.break_watch_after = 3
        result = await client.generate("x")
        assert result.videos == [CONTENT]
