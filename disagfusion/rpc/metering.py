"""Counting the bytes of messages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc

from disagfusion.rpc.handlers import Handler, HandlerDetails
from disagfusion.telemetry.metrics import GrpcMetrics


class MeteringInterceptor(grpc.aio.ServerInterceptor):
    """Counts the serialized bytes of every message, by method and direction.

    Args:
        metrics: Where they are counted.
    """

    def __init__(self, metrics: GrpcMetrics) -> None:
        self._metrics = metrics

    async def intercept_service(self, continuation: Any, details: HandlerDetails) -> Handler:
        """Wrap what decodes requests and encodes responses."""
        handler = await continuation(details)
        if handler is None:
            return None
        received = self._metrics.message_bytes(details.method, "received")
        sent = self._metrics.message_bytes(details.method, "sent")

        def decode(data: bytes) -> Any:
            received.inc(len(data))
            return handler.request_deserializer(data)

        def encode(message: Any) -> bytes:
            data: bytes = handler.response_serializer(message)
            sent.inc(len(data))
            return data

        return _with_codec(handler, decode, encode)


def _with_codec(
    handler: Handler, decode: Callable[[bytes], Any], encode: Callable[[Any], bytes]
) -> Handler:
    codec = {"request_deserializer": decode, "response_serializer": encode}
    if handler.unary_unary:
        return grpc.unary_unary_rpc_method_handler(handler.unary_unary, **codec)
    if handler.unary_stream:
        return grpc.unary_stream_rpc_method_handler(handler.unary_stream, **codec)
    if handler.stream_unary:
        return grpc.stream_unary_rpc_method_handler(handler.stream_unary, **codec)
    return grpc.stream_stream_rpc_method_handler(handler.stream_stream, **codec)
