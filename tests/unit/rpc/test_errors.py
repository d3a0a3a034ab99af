"""Every exception survives the way over the wire, and nothing else gets out."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from disagfusion import errors
from disagfusion.errors import (
    DisagfusionError,
    InternalError,
    InvalidArgumentError,
    JobFailedError,
    NotFoundError,
    ResourceExhaustedError,
    UnavailableError,
)
from disagfusion.rpc.channel import open_channel
from disagfusion.rpc.errors import code_of, from_rpc_error, from_status, to_status
from disagfusion.rpc.server import RpcServer
from disagfusion.v1 import generation_pb2 as pb
from disagfusion.v1.generation_pb2_grpc import (
    GenerationServiceServicer,
    GenerationServiceStub,
    add_GenerationServiceServicer_to_server,
)

CLASSES = [
    cls
    for _, cls in inspect.getmembers(errors, inspect.isclass)
    if issubclass(cls, DisagfusionError)
    and cls is not DisagfusionError
    and not cls.__name__.startswith("_")
]


def make(cls: type[DisagfusionError]) -> DisagfusionError:
    if issubclass(cls, InvalidArgumentError):
        return cls("height", "is 63", expected="a multiple of 16", metadata={"job_id": "j"})
    if issubclass(cls, ResourceExhaustedError | UnavailableError):
        return cls("come back", retry_after=1.25, reason="FULL", metadata={"job_id": "j"})
    return cls("one sentence — for people", metadata={"job_id": "j"})


def test_the_tree_is_covered() -> None:
    assert len(CLASSES) == 15


@pytest.mark.parametrize("cls", CLASSES)
def test_round_trip(cls: type[DisagfusionError]) -> None:
    error = make(cls)
    back = from_status(Status.FromString(to_status(error).SerializeToString()))
    assert type(back) is cls
    assert vars(back) == vars(error)
    assert str(back) == str(error)


def test_a_subclass_that_the_table_does_not_have_takes_its_parents_code() -> None:
    class SpecialError(NotFoundError):
        default_reason = "SPECIAL"

    status = to_status(SpecialError("gone"))
    assert status.code == grpc.StatusCode.NOT_FOUND.value[0]
    assert from_status(status).reason == "SPECIAL"


def test_the_root_itself_is_internal() -> None:
    assert code_of(DisagfusionError("?")) is grpc.StatusCode.INTERNAL


@given(field=st.text(max_size=20), message=st.text(max_size=40), expected=st.text(max_size=40))
def test_any_text_survives(field: str, message: str, expected: str) -> None:
    error = InvalidArgumentError(field, message, expected=expected)
    assert str(from_status(to_status(error))) == str(error)


def test_long_texts_are_shortened_below_the_limit_of_trailers() -> None:
    error = InvalidArgumentError("f" * 9999, "m" * 99999, expected="e" * 9999)
    assert len(to_status(error).SerializeToString()) < 8192


@pytest.mark.parametrize("code", [code for code in grpc.StatusCode if code.value[0]])
def test_statuses_of_others_become_something(code: grpc.StatusCode) -> None:
    error = from_status(Status(code=code.value[0], message="m"))
    assert isinstance(error, DisagfusionError)
    assert "m" in error.message


class Servicer(GenerationServiceServicer):
    async def GetJob(self, request: pb.GetJobRequest, context: Any) -> pb.GetJobResponse:
        match request.job_id:
            case "bug":
                raise ZeroDivisionError("secret inside")
            case "failed":
                raise JobFailedError("it failed", metadata={"job_id": "j"})
        return pb.GetJobResponse(job=pb.Job(job_id=request.job_id))

    async def WatchJob(
        self, request: pb.WatchJobRequest, context: Any
    ) -> AsyncIterator[pb.WatchJobResponse]:
        yield pb.WatchJobResponse(event=pb.JobEvent(sequence=1))
        raise NotFoundError("gone meanwhile")


@pytest.fixture
async def channel(tmp_path: Any) -> AsyncIterator[grpc.aio.Channel]:
    server = RpcServer(f"unix:{tmp_path}/s", ["disagfusion.v1.GenerationService"])
    add_GenerationServiceServicer_to_server(Servicer(), server.grpc)
    await server.start()
    async with open_channel(server.address) as channel:
        yield channel
    await server.stop(0)


async def failure(call: Any) -> DisagfusionError:
    with pytest.raises(grpc.RpcError) as caught:
        await call
    return from_rpc_error(caught.value)


async def test_an_error_of_a_handler_arrives(channel: grpc.aio.Channel) -> None:
    error = await failure(GenerationServiceStub(channel).GetJob(pb.GetJobRequest(job_id="failed")))
    assert type(error) is JobFailedError
    assert error.metadata == {"job_id": "j"}


async def test_nothing_of_the_inside_leaks(
    channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    error = await failure(GenerationServiceStub(channel).GetJob(pb.GetJobRequest(job_id="bug")))
    assert type(error) is InternalError
    assert "secret" not in str(error)
    assert "Zero" not in str(error)
    assert error.metadata["error_id"] in str(error)
    assert error.metadata["error_id"] in capsys.readouterr().out + caplog.text


async def test_an_error_after_the_first_response_of_a_stream(channel: grpc.aio.Channel) -> None:
    received = []

    async def read() -> None:
        async for response in GenerationServiceStub(channel).WatchJob(pb.WatchJobRequest()):
            received.append(response)

    assert isinstance(await failure(read()), NotFoundError)
    assert len(received) == 1


@pytest.mark.parametrize(
    ("raw", "problem"),
    [(b"\x0a\x02\xff\xfe", "not valid UTF-8"), (b"\x0a\xff\xff", "not a valid message")],
)
async def test_what_cannot_be_decoded_is_the_callers_fault(
    channel: grpc.aio.Channel, raw: bytes, problem: str
) -> None:
    for method in ("GetJob", "WatchJob"):
        name = f"/disagfusion.v1.GenerationService/{method}"
        unary = method == "GetJob"
        call = channel.unary_unary(name)(raw) if unary else channel.unary_stream(name)(raw).read()
        error = await failure(call)
        assert isinstance(error, InvalidArgumentError)
        assert error.field == "request"
        assert problem in error.message


async def test_a_connection_failure_is_readable(tmp_path: Any) -> None:
    target = f"unix:{tmp_path}/nobody"
    async with open_channel(target) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            await GenerationServiceStub(channel).GetJob(pb.GetJobRequest())
    error = from_rpc_error(caught.value, target=target)
    assert isinstance(error, UnavailableError)
    assert error.message == f"cannot reach {target}: the socket does not exist"


async def test_a_message_that_is_too_large_is_the_callers_fault(
    channel: grpc.aio.Channel,
) -> None:
    request = pb.GetJobRequest(job_id="x" * (65 * 2**20))
    error = await failure(GenerationServiceStub(channel).GetJob(request))
    assert isinstance(error, InvalidArgumentError)
    assert error.reason == "MESSAGE_TOO_LARGE"
