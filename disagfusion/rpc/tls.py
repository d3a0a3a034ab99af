"""Mutual TLS from three files, which may be renewed: new connections use what is there by then."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, cast

import grpc
from pydantic import BaseModel, ConfigDict

from disagfusion.errors import InvalidArgumentError
from disagfusion.telemetry.logging import get_logger

_log = get_logger(__name__)


class TlsSettings(BaseModel):
    """A certificate of our own and the authority that signs everyone's.

    Both sides show a certificate: a server accepts only clients whose certificate `ca` signed,
    and a client only such servers.

    Attributes:
        cert: PEM file with the certificate and its chain.
        key: PEM file with the private key, not encrypted.
        ca: PEM file with the authorities that are trusted.
        server_name: The name that clients expect in a server's certificate instead of the address
            they connect to; for addresses of pods, which no certificate has.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    cert: Path
    key: Path
    ca: Path
    server_name: str = ""


def server_credentials(tls: TlsSettings) -> grpc.ServerCredentials:
    """Return credentials of a server that asks every client for a certificate.

    Raises:
        InvalidArgumentError: Naming the file that is missing or damaged.
    """
    files = _Files(tls)

    def renewed() -> grpc.ServerCertificateConfiguration | None:
        return _configuration(files.contents) if files.renewed() else None

    return grpc.dynamic_ssl_server_credentials(
        # None, for no change, is missing in the stubs.
        _configuration(files.contents),
        cast(Any, renewed),
        require_client_authentication=True,
    )


def _configuration(contents: tuple[bytes, bytes, bytes]) -> grpc.ServerCertificateConfiguration:
    cert, key, ca = contents
    return grpc.ssl_server_certificate_configuration([(key, cert)], ca)


def channel_credentials(tls: TlsSettings) -> grpc.ChannelCredentials:
    """Return credentials of a client.

    Raises:
        InvalidArgumentError: Naming the file that is missing or damaged.
    """
    cert, key, ca = _read(tls)
    return grpc.ssl_channel_credentials(ca, key, cert)


class RenewedContext(ssl.SSLContext):
    """For connections of asyncio: each new one uses the files as they are by then.

    Authorities that are no longer in their file are trusted until the process ends.
    """

    _files: _Files

    @classmethod
    def of(cls, tls: TlsSettings, *, server: bool) -> RenewedContext:
        """Return the context of one side, which asks the other for its certificate.

        Raises:
            InvalidArgumentError: Naming the file that is missing or damaged.
        """
        context = cls(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
        context._files = _Files(tls)
        context._load(tls)
        context.verify_mode = ssl.CERT_REQUIRED
        return context

    def _load(self, tls: TlsSettings) -> None:
        self.load_cert_chain(tls.cert, tls.key, password=lambda: "")
        self.load_verify_locations(tls.ca)

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """See `ssl.SSLContext`."""
        if self._files.renewed():
            self._load(self._files.tls)
        return super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)


class _Files:
    """The three files as they were last found whole.

    Raises:
        InvalidArgumentError: Naming the file that is missing or damaged.
    """

    def __init__(self, tls: TlsSettings) -> None:
        self.tls = tls
        self._seen = self._stamps()
        self.contents = _read(tls)

    def renewed(self) -> bool:
        """Read files that have changed; whether they have. What is damaged is left unused."""
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        try:
            contents = _read(self.tls)
        except InvalidArgumentError as error:
            _log.warning("certificate not renewed", problem=error.message)
            return False
        self._seen, self.contents = stamps, contents
        _log.info("certificate renewed", path=str(self.tls.cert))
        return True

    def _stamps(self) -> list[tuple[int, int, int]]:
        stamps = []
        for path in (self.tls.cert, self.tls.key, self.tls.ca):
            try:
                found = path.stat()
            except OSError:
                stamps.append((0, 0, 0))
            else:
                stamps.append((found.st_mtime_ns, found.st_ino, found.st_size))
        return stamps


def _read(tls: TlsSettings) -> tuple[bytes, bytes, bytes]:
    # gRPC accepts any bytes and fails at the first handshake without saying why.
    contents = []
    for field in ("cert", "key", "ca"):
        path: Path = getattr(tls, field)
        try:
            contents.append(path.read_bytes())
        except OSError as error:
            raise InvalidArgumentError(
                f"tls_{field}", f"cannot read {path}: {error.strerror}", expected="a PEM file"
            ) from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(tls.ca)
    except ssl.SSLError as error:
        raise InvalidArgumentError(
            "tls_ca", f"{tls.ca} is damaged", expected="certificates in PEM"
        ) from error
    try:
        context.load_cert_chain(tls.cert, tls.key, password=lambda: "")
    except ssl.SSLError as error:
        raise InvalidArgumentError(
            "tls_cert",
            f"{tls.cert} and {tls.key} do not fit each other or are damaged",
            expected="a certificate and its unencrypted key in PEM",
        ) from error
    return contents[0], contents[1], contents[2]
