"""Wrapping of method handlers, which the interceptors share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

import grpc
from google.protobuf.message import DecodeError

ServerInterceptor: TypeAlias = grpc.aio.ServerInterceptor
"""For those who put a server together without gRPC."""

Handler: TypeAlias = Any
"""A `grpc.RpcMethodHandler`, which the type stubs declare only in part; or None."""

Guard: TypeAlias = Callable[[Any, object], AbstractAsyncContextManager[None]]
"""Called with the context and the request (or None where requests are a stream)."""


class HandlerDetails(Protocol):
    """What an interceptor is told about a call."""

    @property
    def method(self) -> str:
        """The full name, such as "/package.Service/Method"."""
        ...

    @property
    def invocation_metadata(self) -> Any:
        """Pairs of key and value."""
        ...


@dataclass(frozen=True, slots=True)
class Undecodable:
    """Stands for a request that could not be decoded.

    gRPC answers a failed decoding with UNKNOWN and the exception's text before any interceptor
    is asked, so the failure travels to where the call can be ended properly.
    """

    error: DecodeError


def guarded(handler: Handler, guard: Guard) -> Handler:
    """Return a handler that runs within `guard`.

    Args:
        handler: Of a coroutine function, or of an async generator function where responses are
            a stream.
        guard: Makes the context manager around each call.
    """
    decode = handler.request_deserializer
    arguments = {
        "request_deserializer": _tolerant(decode) if decode else None,
        "response_serializer": handler.response_serializer,
    }
    if handler.unary_unary:
        method = _unary(handler.unary_unary, guard)
        return grpc.unary_unary_rpc_method_handler(method, **arguments)
    if handler.unary_stream:
        method = _stream(handler.unary_stream, guard)
        return grpc.unary_stream_rpc_method_handler(method, **arguments)
    if handler.stream_unary:
        method = _unary(handler.stream_unary, guard)
        return grpc.stream_unary_rpc_method_handler(method, **arguments)
    return grpc.stream_stream_rpc_method_handler(_stream(handler.stream_stream, guard), **arguments)


def _tolerant(decode: Callable[[bytes], Any]) -> Callable[[bytes], Any]:
    def decoded(data: bytes) -> Any:
        try:
            return decode(data)
        except DecodeError as error:
            return Undecodable(error)

    return decoded


async def _checked(requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        if isinstance(request, Undecodable):
            raise request.error
        yield request


def _is_stream(request: object) -> bool:
    return hasattr(request, "__anext__") or hasattr(request, "__aiter__")


def _unary(method: Callable[[Any, Any], Awaitable[Any]], guard: Guard) -> Any:
    async def call(request: Any, context: Any) -> Any:
        stream = _is_stream(request)
        async with guard(context, None if stream else request):
            return await method(_checked(request) if stream else request, context)

    return call


def _stream(method: Callable[[Any, Any], AsyncIterator[Any]], guard: Guard) -> Any:
    async def call(request: Any, context: Any) -> AsyncIterator[Any]:
        stream = _is_stream(request)
        async with guard(context, None if stream else request):
            async for response in method(_checked(request) if stream else request, context):
                yield response

    return call
