from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from disagfusion.transport import TransportSettings, create
from disagfusion.transport.api import Delivery, Transport
from disagfusion.transport.testing import MemoryInbox, RecordingObserver, make_message

BACKENDS = ["inproc", "tcp", "tcp+tls", "ucx", "ucx-network"]
# Many beats, to have them in the way; silence is not what these tests are about.
QUICK = {"heartbeat_seconds": 0.05, "silence_seconds": 20.0, "connect_seconds": 20.0}


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + built.public_bytes(serialization.Encoding.PEM)
    )
    return path


@dataclass
class End:
    """A transport with what it tells."""

    transport: Transport
    inbox: MemoryInbox
    observer: RecordingObserver
    incarnation: str

    async def send(self, to: End, *payload: bytes, timeout: float = 20, **kwargs: str) -> Delivery:  # noqa: ASYNC109
        message = make_message(payload, sender=self.incarnation, **kwargs)
        return await self.transport.send(to.transport.address, message, timeout=timeout)


@dataclass
class Maker:
    """Makes transports of one backend."""

    name: str
    certificate: Path
    options: dict[str, object] = field(default_factory=dict)

    @property
    def backend(self) -> str:
        return self.name.partition("+")[0].partition("-")[0]

    @property
    def carriers(self) -> set[str]:
        return {"ucx": {"ucx/shm"}, "ucx-network": {"ucx/tcp"}}.get(self.name, {self.name})

    def settings(self, **changes: object) -> TransportSettings:
        special: dict[str, object] = {}
        if self.name == "tcp+tls":
            server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server.load_cert_chain(self.certificate)
            server.load_verify_locations(self.certificate)
            server.verify_mode = ssl.CERT_REQUIRED
            client = ssl.create_default_context(cafile=str(self.certificate))
            client.load_cert_chain(self.certificate)
            special = {"server_tls": server, "client_tls": client}
        elif self.name == "ucx-network":
            # As if each end were in a container of its own.
            special = {"ucx_shared_memory": False, "ucx_options": {"TLS": "tcp,self"}}
        return TransportSettings(**{**QUICK, **special, **changes})  # type: ignore[arg-type]

    @asynccontextmanager
    async def end(self, incarnation: str, **changes: object) -> AsyncIterator[End]:
        inbox, observer = MemoryInbox(), RecordingObserver()
        transport = create(
            self.backend,
            inbox,
            incarnation=incarnation,
            settings=self.settings(**changes),
            observer=observer,
        )
        async with transport:
            yield End(transport, inbox, observer, incarnation)


@pytest.fixture(params=BACKENDS)
def maker(request: pytest.FixtureRequest, certificate: Path) -> Maker:
    return Maker(request.param, certificate)
