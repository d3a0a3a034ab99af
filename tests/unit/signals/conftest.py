from __future__ import annotations

import datetime
import ipaddress
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Reply = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Server:
    """An HTTP server that answers as it is told.

    Attributes:
        reply: Writes the answer.
        seen: Paths and headers of what was asked.
    """

    http: ThreadingHTTPServer
    reply: Reply | None = None
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http.server_port}"

    def say(self, content: bytes, status: int = 200, **headers: str) -> None:
        """Answer everything with this."""

        def reply(request: BaseHTTPRequestHandler) -> None:
            request.send_response(status)
            told = {"Content_Length": str(len(content)), **headers}
            for name, value in told.items():
                request.send_header(name.replace("_", "-"), value)
            request.end_headers()
            request.wfile.write(content)

        self.reply = reply


def vector(number: str, *, age: float = 0.0, at: float | None = None, key: dict[str, str]) -> bytes:
    """What a Prometheus answers that has one series."""
    at = time.time() if at is None else at
    parts = {"value": number, "last": number, "at": repr(at - age)}
    result = [
        {"metric": {**key, "part": part}, "value": [at, value]} for part, value in parts.items()
    ]
    return json.dumps(
        {"status": "success", "data": {"resultType": "vector", "result": result}}
    ).encode()


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
            assert found.reply is not None
            try:
                found.reply(self)
            except OSError:
                self.close_connection = True  # whoever asked has gone

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    found = Server(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
    thread = threading.Thread(target=found.http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.http.shutdown()
    found.http.server_close()
    thread.join()


@dataclass
class Certificate:
    """One for `prometheus.test` and 127.0.0.1, signed by itself."""

    cert: Path
    key: Path


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    directory = tmp_path_factory.mktemp("certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "prometheus.test")])
    now = datetime.datetime.now(datetime.UTC)
    names = [
        x509.DNSName("prometheus.test"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.2")),
    ]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    found = Certificate(directory / "cert.pem", directory / "key.pem")
    found.cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    found.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return found
