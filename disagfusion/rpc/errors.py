"""The one table from exceptions to gRPC statuses, and back.

A status carries `google.rpc.ErrorInfo` with the exception's reason and metadata, `BadRequest` where
a field is wrong and `RetryInfo` where it is known when to come back. The same conversion serves
`Job.error`, which is a `google.rpc.Status` too.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, NoReturn, Protocol, cast
from uuid import uuid4

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from disagfusion.errors import (
    ERROR_DOMAIN,
    AbortedError,
    AlreadyExistsError,
    DataLossError,
    DeadlineExceededError,
    DisagfusionError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
    JobCancelledError,
    JobFailedError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnauthenticatedError,
    UnavailableError,
    UnimplementedError,
)
from disagfusion.rpc.handlers import (
    Handler,
    HandlerDetails,
    Undecodable,
    guarded,
)
from disagfusion.telemetry.logging import get_logger

# The trailer in which gRPC carries a google.rpc.Status:
# https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#responses
DETAILS_KEY = "grpc-status-details-bin"

# gRPC refuses trailers of more than 8 KiB; a long message would turn into an obscure error.
_MAX_MESSAGE = 1024
_MAX_METADATA_VALUE = 256

_CODES: dict[type[DisagfusionError], grpc.StatusCode] = {
    InvalidArgumentError: grpc.StatusCode.INVALID_ARGUMENT,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    PermissionDeniedError: grpc.StatusCode.PERMISSION_DENIED,
    NotFoundError: grpc.StatusCode.NOT_FOUND,
    AlreadyExistsError: grpc.StatusCode.ALREADY_EXISTS,
    FailedPreconditionError: grpc.StatusCode.FAILED_PRECONDITION,
    AbortedError: grpc.StatusCode.ABORTED,
    ResourceExhaustedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    UnavailableError: grpc.StatusCode.UNAVAILABLE,
    DeadlineExceededError: grpc.StatusCode.DEADLINE_EXCEEDED,
    JobCancelledError: grpc.StatusCode.CANCELLED,
    DataLossError: grpc.StatusCode.DATA_LOSS,
    UnimplementedError: grpc.StatusCode.UNIMPLEMENTED,
    InternalError: grpc.StatusCode.INTERNAL,
}
_CLASSES = {code.value[0]: cls for cls, code in _CODES.items()}

_log = get_logger(__name__)


class _Context(Protocol):
    async def abort(
        self, code: grpc.StatusCode, details: str = ..., trailing_metadata: Any = ...
    ) -> NoReturn: ...


def code_of(error: DisagfusionError) -> grpc.StatusCode:
    """Return the gRPC code of an exception: that of its nearest class in the table."""
    return next(
        (_CODES[cls] for cls in type(error).__mro__ if cls in _CODES), grpc.StatusCode.INTERNAL
    )


def to_status(error: DisagfusionError) -> Status:
    """Return an exception as a `google.rpc.Status` with its details."""
    status = Status(code=code_of(error).value[0], message=_shortened(error.message, _MAX_MESSAGE))
    info = ErrorInfo(reason=error.reason, domain=ERROR_DOMAIN)
    for key, value in error.metadata.items():
        info.metadata[_shortened(key, 64)] = _shortened(value, _MAX_METADATA_VALUE)
    status.details.add().Pack(info)
    if isinstance(error, InvalidArgumentError):
        violation = BadRequest.FieldViolation(
            field=_shortened(error.field, _MAX_METADATA_VALUE),
            description=_shortened(_description(error), _MAX_MESSAGE),
        )
        status.details.add().Pack(BadRequest(field_violations=[violation]))
    if isinstance(error, ResourceExhaustedError | UnavailableError) and (
        error.retry_after is not None
    ):
        retry = RetryInfo()
        retry.retry_delay.FromNanoseconds(round(error.retry_after * 1e9))
        status.details.add().Pack(retry)
    return status


def from_status(status: Status) -> DisagfusionError:
    """Return a `google.rpc.Status` as the exception that it was made from.

    Statuses of other servers become the class that fits the code; codes that the table does not
    have become `InternalError`.
    """
    info, request, retry = ErrorInfo(), BadRequest(), RetryInfo()
    for detail in status.details:
        for message in (info, request, retry):
            if detail.Is(message.DESCRIPTOR):
                detail.Unpack(message)
    cls = _CLASSES.get(status.code, InternalError)
    if cls is InternalError and info.reason == JobFailedError.default_reason:
        cls = JobFailedError
    reason = info.reason or None
    metadata = dict(info.metadata)
    if issubclass(cls, InvalidArgumentError):
        return _invalid_argument(status.message, request, reason, metadata)
    if issubclass(cls, ResourceExhaustedError | UnavailableError):
        after = retry.retry_delay.ToNanoseconds() / 1e9 if retry.HasField("retry_delay") else None
        return cls(status.message, retry_after=after, reason=reason, metadata=metadata)
    return cls(status.message, reason=reason, metadata=metadata)


def _invalid_argument(
    message: str, request: BadRequest, reason: str | None, metadata: dict[str, str]
) -> InvalidArgumentError:
    expected = metadata.pop("expected", "")
    metadata.pop("field", None)
    if not request.field_violations:
        return InvalidArgumentError("request", message, reason=reason, metadata=metadata)
    violation = request.field_violations[0]
    return InvalidArgumentError(
        violation.field, violation.description, expected=expected, reason=reason, metadata=metadata
    )


def _description(error: InvalidArgumentError) -> str:
    text = error.message.removeprefix(f"{error.field}: ")
    return text.removesuffix(f" (expected {error.expected})")


def _shortened(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


async def abort(context: _Context, error: DisagfusionError) -> NoReturn:
    """End a call with the status of an exception."""
    status = to_status(error)
    trailer = ((DETAILS_KEY, status.SerializeToString()),)
    await context.abort(code_of(error), status.message, trailer)


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns exceptions of handlers into statuses.

    A `DisagfusionError` becomes its status. Anything else becomes INTERNAL with an id, under which
    the log has the traceback; the caller learns nothing of the inside. A request that is not a
    valid message, such as one with invalid UTF-8, becomes INVALID_ARGUMENT.
    """

    async def intercept_service(self, continuation: Any, details: HandlerDetails) -> Handler:
        """Wrap a handler."""
        handler = await continuation(details)
        # Health's Watch is no generator, and neither raises what this is for.
        if handler is None or details.method.startswith("/grpc.health."):
            return cast(Handler, handler)

        @asynccontextmanager
        async def guard(context: Any, request: object) -> AsyncIterator[None]:
            try:
                if isinstance(request, Undecodable):
                    raise _undecodable(request.error)
                yield
            except DisagfusionError as error:
                await abort(context, error)
            except DecodeError as error:
                await abort(context, _undecodable(error))
            except grpc.aio.BaseError:
                raise
            except Exception as error:  # noqa: BLE001 - the boundary: nothing may leak to callers
                await abort(context, _unexpected(details.method, error))

        return guarded(handler, guard)


def _undecodable(error: DecodeError) -> InvalidArgumentError:
    problem = "a string is not valid UTF-8" if "UTF-8" in str(error) else "not a valid message"
    return InvalidArgumentError("request", problem, reason="UNDECODABLE_REQUEST")


def _unexpected(method: str, error: Exception) -> InternalError:
    identifier = uuid4().hex
    _log.error("unexpected exception", error_id=identifier, method=method, exc_info=error)
    return InternalError(
        f"internal error; the log has it under {identifier}", metadata={"error_id": identifier}
    )


def from_rpc_error(error: grpc.RpcError, *, target: str = "") -> DisagfusionError:
    """Return what a call raised as an exception of ours.

    Args:
        error: A `grpc.aio.AioRpcError`, or the `grpc.RpcError` of a synchronous call.
        target: The address, for the message of a failed connection.
    """
    call = cast(Any, error)
    code: grpc.StatusCode = call.code()
    for key, value in call.trailing_metadata() or ():
        if key == DETAILS_KEY:
            try:
                return from_status(Status.FromString(value))
            except DecodeError:
                break
    details: str = call.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE:
        return _connection_error(details, target)
    if code is grpc.StatusCode.CANCELLED:
        return UnavailableError("the call was cancelled", reason="CALL_CANCELLED")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return InvalidArgumentError("request", details, reason="MESSAGE_TOO_LARGE")
    return from_status(Status(code=code.value[0], message=details or code.name.lower()))


# What gRPC's core writes, and what a person would want to read instead.
_CONNECTION_PROBLEMS: Mapping[str, str] = {
    r"connection refused": "connection refused: nothing listens there",
    r"no such file or directory": "the socket does not exist",
    r"CERTIFICATE_VERIFY_FAILED|hostname verification|peer name":
        "the server's certificate was not accepted",
    r"TLSV1_ALERT|CERTIFICATE_REQUIRED|SSL|tls|handshake": "the TLS handshake failed",
    r"DNS|name resolution|resolve": "the host name could not be resolved",
    r"timed? ?out": "the connection timed out",
    r"socket closed|connection reset|broken pipe|GOAWAY|end of TCP stream":
        "the connection was lost",
}  # fmt: skip


def _connection_error(details: str, target: str) -> UnavailableError:
    problem = next(
        (
            text
            for pattern, text in _CONNECTION_PROBLEMS.items()
            if re.search(pattern, details, re.IGNORECASE)
        ),
        details or "no answer",
    )
    prefix = f"cannot reach {target}: " if target else ""
    return UnavailableError(f"{prefix}{problem}", reason="UNREACHABLE")
