"""The services' command line, mutual TLS, and a front that starts its engine itself."""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from stagekit.driver import Driver, Worker, generation
from stagekit.processes import Cluster, killed_with_its_engine

from disagfusion.rpc.channel import TlsSettings, open_channel
from disagfusion.v1 import stage_pb2
from disagfusion.v1.stage_pb2_grpc import StageServiceStub


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({}, "DISAGFUSION_MODEL: Field required"),
        ({"MODEL": "m", "SLOTS": "0"}, "DISAGFUSION_SLOTS"),
        ({"MODEL": "m", "DEVICE": "toaster"}, "device"),
        ({"MODEL": "m", "LISTEN": "nowhere"}, "nowhere"),
        ({"MODEL": "m", "LISTEN": "unix:/no/such/directory/x.sock"}, "directory"),
        ({"MODEL": "m", "TLS_CERT": "/no/such/file"}, "tls_key"),
        ({"MODEL": "m", "METRICS_LISTEN": "nowhere"}, "metrics"),
    ],
)
def test_wrong_settings_are_one_readable_line(settings: dict[str, str], problem: str) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("DISAGFUSION_")}
    environment |= {f"DISAGFUSION_{key}": value for key, value in settings.items()}
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "disagfusion_dit"],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    lines = ended.stderr.strip().splitlines()
    assert problem in lines[-1]
    assert lines[-1].startswith("disagfusion-dit: ")
    assert "Traceback" not in ended.stderr


def test_a_port_in_use_is_said() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        ended = subprocess.run(
            [sys.executable, "-P", "-m", "disagfusion_encoder"],
            env={
                **os.environ,
                "DISAGFUSION_MODEL": "m",
                "DISAGFUSION_TRANSPORT": "tcp",
                "DISAGFUSION_LISTEN": f"127.0.0.1:{port}",
            },
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert ended.returncode == 1
    assert f"127.0.0.1:{port} is in use" in ended.stderr.strip().splitlines()[-1]


async def test_a_front_that_starts_its_engine_itself(cluster: Cluster, driver: Driver) -> None:
    settings = {"fork_server": "", "slots": 3, "send_slots": 4}
    front = await asyncio.to_thread(lambda: cluster.front("encoder", "alone", **settings))
    worker = Worker(front.address)
    worker.patience = 240.0
    async with worker:
        await worker.ready()
        content = await Driver(worker, driver.dit, driver.decoder).generate("self", generation())
        assert content == await driver.generate("forked", generation())
        described = await worker.describe()
        assert (described.slots, described.send_slots) == (3, 4)
        engine = described.engine_pid
        arguments = (Path("/proc") / str(engine) / "cmdline").read_bytes().split(b"\0")
        assert b"disagfusion.stage.engine" in arguments
    await killed_with_its_engine(front, engine)


def certificates(directory: Path) -> dict[str, Path]:
    """An authority and a certificate that it signed, for servers and clients alike."""
    now = datetime.datetime.now(datetime.UTC)

    def name(common: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])

    def built(subject: str, key: ec.EllipticCurvePrivateKey, ca: bool) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name("authority"))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )

    authority, own = (
        ec.generate_private_key(ec.SECP256R1()),
        ec.generate_private_key(ec.SECP256R1()),
    )
    root = built("authority", authority, True).sign(authority, hashes.SHA256())
    alternative = x509.SubjectAlternativeName([x509.DNSName("stage.test")])
    leaf = built("stage", own, False).add_extension(alternative, critical=False)
    pem = serialization.Encoding.PEM
    files = {
        "ca": root.public_bytes(pem),
        "cert": leaf.sign(authority, hashes.SHA256()).public_bytes(pem),
        "key": own.private_bytes(
            pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    }
    for kind, content in files.items():
        (directory / f"{kind}.pem").write_bytes(content)
    return {kind: directory / f"{kind}.pem" for kind in files}


async def test_mutual_tls_for_calls_and_tensors(cluster: Cluster, tmp_path: Path) -> None:
    files = certificates(tmp_path)
    settings = {f"tls_{kind}": path for kind, path in files.items()}
    settings |= {"tls_server_name": "stage.test", "listen": "127.0.0.1:0"}
    fronts = await asyncio.to_thread(
        lambda: cluster.fronts("encoder", "dit", "decoder", **settings)
    )
    tls = TlsSettings(server_name="stage.test", **files)
    workers = [Worker(front.address, tls=tls) for front in fronts]
    async with workers[0], workers[1], workers[2]:
        for worker in workers:
            await worker.ready()
        await Driver(*workers).generate("secret", generation())
        sent = workers[0].all("sent")[0].sent
        assert sent.transport == "tcp+tls"
    async with open_channel(fronts[0].address) as channel:
        with pytest.raises(grpc.RpcError):
            await StageServiceStub(channel).Describe(stage_pb2.DescribeRequest(), timeout=10)
    for front in fronts:
        assert front.stop() == 0
