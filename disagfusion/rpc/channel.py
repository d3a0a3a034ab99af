"""Client channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import grpc

from disagfusion.rpc.tls import TlsSettings, channel_credentials

__all__ = ["MAX_MESSAGE_BYTES", "TlsSettings", "api_key_metadata", "open_channel"]

MAX_MESSAGE_BYTES = 64 * 2**20
"""Of one message in either direction: a request with its images, or an assignment."""


def open_channel(
    target: str,
    *,
    tls: TlsSettings | None = None,
    api_key: str = "",
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    proxy: bool = False,
) -> grpc.aio.Channel:
    """Return a channel, which connects at its first call and again whenever it has to.

    gRPC's own retries are off: whoever calls knows what is safe to repeat.

    Args:
        target: `host:port` or `unix:/path`.
        tls: For mutual TLS.
        api_key: Sent with every unary request.
        max_message_bytes: Of one message in either direction.
        proxy: Whether the environment's `http_proxy` is used.

    Raises:
        InvalidArgumentError: A TLS file is missing or damaged.
    """
    options: list[tuple[str, Any]] = [
        ("grpc.enable_retries", 0),
        ("grpc.enable_http_proxy", int(proxy)),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.keepalive_time_ms", 20_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.http2.max_pings_without_data", 0),
        # One connection per channel, so that one's back-off does not hold up another.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
    ]
    interceptors: list[Any] = [_UnaryUnaryKey(api_key), _UnaryStreamKey(api_key)]
    if not api_key:
        interceptors = []
    if tls is None:
        return grpc.aio.insecure_channel(target, options, interceptors=interceptors)
    if tls.server_name:
        options.append(("grpc.ssl_target_name_override", tls.server_name))
    return grpc.aio.secure_channel(
        target, channel_credentials(tls), options, interceptors=interceptors
    )


def api_key_metadata(api_key: str) -> Sequence[tuple[str, str]]:
    """Return the metadata that carries an API key."""
    return (("authorization", f"Bearer {api_key}"),)


class _Key:
    def __init__(self, api_key: str) -> None:
        self._metadata = api_key_metadata(api_key)

    async def _call(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        metadata = details.metadata or grpc.aio.Metadata()
        for key, value in self._metadata:
            metadata.add(key, value)
        return await continuation(details._replace(metadata=metadata), request)


# gRPC takes an interceptor for the first kind of call that its class names and ignores the others.
class _UnaryUnaryKey(_Key, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        return await self._call(continuation, client_call_details, request)


class _UnaryStreamKey(_Key, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(
        self, continuation: Any, client_call_details: Any, request: Any
    ) -> Any:
        return await self._call(continuation, client_call_details, request)
