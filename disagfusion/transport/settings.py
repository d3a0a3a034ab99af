"""What can be set about a transport, and who is told what it does."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


class Observer(Protocol):
    """Is told what a transport does, for metrics. Called in the event loop; never blocks."""

    def sent(self, transport: str, outcome: str, nbytes: int, seconds: float) -> None:
        """Take note of an attempt to send.

        Args:
            transport: What carried it, such as "ucx/shm".
            outcome: "delivered", "lost", or a `RefusalReason`.
            nbytes: Of the payload.
            seconds: From the first byte offered to the outcome.
        """

    def received(self, transport: str, outcome: str, nbytes: int, seconds: float) -> None:
        """Take note of what became of a message that was offered here.

        Args:
            transport: What carried it.
            outcome: "delivered", "lost", or a `RefusalReason`; "checksum" is a checksum failure.
            nbytes: Of the payload.
            seconds: From the admitted header to the outcome, 0 where it was not admitted.
        """

    def rejected(self, reason: str) -> None:
        """Take note of a connection that was closed because of what came over it.

        Args:
            reason: "malformed", "token", "stale", "crowded", "silent" or "handshake".
        """


class NullObserver:
    """An `Observer` that takes no note."""

    def sent(self, transport: str, outcome: str, nbytes: int, seconds: float) -> None:
        """Do nothing."""

    def received(self, transport: str, outcome: str, nbytes: int, seconds: float) -> None:
        """Do nothing."""

    def rejected(self, reason: str) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportSettings:
    """Settings of a transport.

    Attributes:
        host: Address to listen on.
        port: Port to listen on; 0 for any that is free.
        advertise: Host name or address under which others reach `host`; the same where empty.
        max_message_bytes: Payloads above are refused before the inbox is asked.
        segment_bytes: Payloads are moved and verified in pieces of this size. Of larger ones the
            checksum finds less in the processor's cache.
        eager_bytes: A payload of at most so many bytes follows its header at once, a larger one
            when the receiver has admitted it.
        heartbeat_seconds: How often a silent peer is asked for a sign of life during a hand-over.
        silence_seconds: After that long without any byte from a peer it is given up.
        connect_seconds: Time for connecting and introducing.
        transfer_seconds: The longest that a receiver keeps a slot open for one message.
        idle_seconds: Connections unused for that long are closed.
        max_connections: Connections accepted at the same time.
        connections_per_peer: Hand-overs to one peer at the same time; more wait.
        server_tls: For TLS on accepted connections.
        client_tls: For TLS on connections made.
        tls_server_name: The name that the peer's certificate must have, where it is not the host.
        ucx_shared_memory: Whether UCX uses shared memory with peers that seem to share it.
        ucx_options: Options of UCX by name without the prefix `UCX_`, over those chosen here.
    """

    host: str = "127.0.0.1"
    port: int = 0
    advertise: str = ""
    max_message_bytes: int = 16 << 30
    segment_bytes: int = 2 << 20
    eager_bytes: int = 256 << 10
    heartbeat_seconds: float = 1.0
    silence_seconds: float = 5.0
    connect_seconds: float = 5.0
    transfer_seconds: float = 120.0
    idle_seconds: float = 300.0
    max_connections: int = 256
    connections_per_peer: int = 2
    server_tls: ssl.SSLContext | None = None
    client_tls: ssl.SSLContext | None = None
    tls_server_name: str = ""
    ucx_shared_memory: bool = True
    ucx_options: Mapping[str, str] = field(default_factory=dict)
