"""Mutual TLS from three files."""

from __future__ import annotations

import ssl
from pathlib import Path

import grpc
from pydantic import BaseModel, ConfigDict

from disagfusion.errors import InvalidArgumentError


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
    cert, key, ca = _read(tls)
    return grpc.ssl_server_credentials([(key, cert)], ca, require_client_auth=True)


def channel_credentials(tls: TlsSettings) -> grpc.ChannelCredentials:
    """Return credentials of a client.

    Raises:
        InvalidArgumentError: Naming the file that is missing or damaged.
    """
    cert, key, ca = _read(tls)
    return grpc.ssl_channel_credentials(ca, key, cert)


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
