"""How a Prometheus is reached, in the words of Prometheus' own `http_config`."""

from __future__ import annotations

import base64
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from disagfusion.errors import InvalidArgumentError


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TlsConfig(_Settings):
    """TLS towards the server.

    Attributes:
        ca_file: PEM file of the authorities that are trusted; the system's by default.
        cert_file: PEM file of our certificate, where the server asks for one.
        key_file: PEM file of its key.
        server_name: The name that the server's certificate must have, where it is not the URL's.
        insecure_skip_verify: Trust whoever answers.
    """

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None
    server_name: str = ""
    insecure_skip_verify: bool = False

    @model_validator(mode="after")
    def _both_or_none(self) -> TlsConfig:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file are given together")
        return self


class BasicAuth(_Settings):
    """A user and a password.

    Attributes:
        username: Of the user.
        password: In the clear.
        password_file: File that has it; read anew for each request.
    """

    username: str
    password: SecretStr | None = None
    password_file: Path | None = None

    @model_validator(mode="after")
    def _one(self) -> BasicAuth:
        if (self.password is None) == (self.password_file is None):
            raise ValueError("give either password or password_file")
        if ":" in self.username:
            raise ValueError("username: a name without a colon is expected")
        return self


class Authorization(_Settings):
    """A token.

    Attributes:
        type: How it is announced.
        credentials: In the clear.
        credentials_file: File that has it, such as a service account's; read anew for each
            request.
    """

    type: str = "Bearer"
    credentials: SecretStr | None = None
    credentials_file: Path | None = None

    @model_validator(mode="after")
    def _one(self) -> Authorization:
        if (self.credentials is None) == (self.credentials_file is None):
            raise ValueError("give either credentials or credentials_file")
        return self


class PrometheusSettings(_Settings):
    """How a Prometheus, or what speaks its HTTP API, is reached.

    Attributes:
        url: Such as `http://prometheus.monitoring:9090`; a path before `/api/v1` is kept.
        timeout_seconds: For one query, from the connection to the last byte.
        max_answer_bytes: A longer answer is refused.
        basic_auth: A user and a password.
        authorization: A token.
        tls_config: For an `https` URL.
        http_headers: Further headers, such as `X-Scope-OrgID`.
    """

    url: str
    timeout_seconds: float = Field(default=5.0, gt=0, allow_inf_nan=False)
    max_answer_bytes: int = Field(default=16 * 2**20, ge=1)
    basic_auth: BasicAuth | None = None
    authorization: Authorization | None = None
    tls_config: TlsConfig = TlsConfig()
    http_headers: dict[str, str] = Field(default_factory=dict)

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("http://host:port or https://host:port is expected")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("neither credentials nor a query belong into it; see basic_auth")
        _ = parts.port  # raises where it is no number
        return url.rstrip("/")

    @model_validator(mode="after")
    def _one_identity(self) -> PrometheusSettings:
        if self.basic_auth is not None and self.authorization is not None:
            raise ValueError("give either basic_auth or authorization")
        return self

    def headers(self) -> dict[str, str]:
        """Return the headers of a request, with secrets as their files are now.

        Raises:
            OSError: A file cannot be read.
            ValueError: What it has is no header's value.
        """
        headers = {"Accept": "application/json", **self.http_headers}
        if self.basic_auth is not None:
            password = _secret(self.basic_auth.password, self.basic_auth.password_file)
            pair = f"{self.basic_auth.username}:{password}".encode()
            headers["Authorization"] = f"Basic {base64.b64encode(pair).decode()}"
        elif self.authorization is not None:
            token = _secret(self.authorization.credentials, self.authorization.credentials_file)
            headers["Authorization"] = f"{self.authorization.type} {token}"
        return headers

    def tls(self) -> ssl.SSLContext | None:
        """Return how the server is verified; None for a URL without TLS.

        Raises:
            InvalidArgumentError: A file is missing or damaged.
        """
        if not self.url.startswith("https:"):
            return None
        config = self.tls_config
        context = _Context(ssl.PROTOCOL_TLS_CLIENT)
        context.server_name = config.server_name
        if config.insecure_skip_verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        try:
            if config.ca_file is not None:
                context.load_verify_locations(config.ca_file)
            else:
                context.load_default_certs()
        except (OSError, ssl.SSLError) as error:
            raise InvalidArgumentError(
                "tls_config.ca_file", f"cannot use {config.ca_file}: {error}", expected="PEM"
            ) from error
        try:
            if config.cert_file is not None:
                context.load_cert_chain(config.cert_file, config.key_file, password=lambda: "")
        except (OSError, ssl.SSLError) as error:
            raise InvalidArgumentError(
                "tls_config.cert_file",
                f"cannot use {config.cert_file} with {config.key_file}: {error}",
                expected="a certificate and its unencrypted key in PEM",
            ) from error
        return context


class _Context(ssl.SSLContext):
    """Expects another name than that of the address, where one is given."""

    server_name = ""

    def wrap_socket(
        self,
        sock: socket.socket,
        server_side: bool = False,
        do_handshake_on_connect: bool = True,
        suppress_ragged_eofs: bool = True,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLSocket:
        """See `ssl.SSLContext`."""
        name = self.server_name or server_hostname
        return super().wrap_socket(
            sock, server_side, do_handshake_on_connect, suppress_ragged_eofs, name, session
        )


def _secret(given: SecretStr | None, file: Path | None) -> str:
    if given is not None:
        return given.get_secret_value()
    assert file is not None, "one of both is there"
    return file.read_text().strip()
