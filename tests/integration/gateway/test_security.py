"""Keys, tenants, certificates, and those who send rubbish."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from pathlib import Path
from typing import Any

import grpc
import pytest
from gatewaykit.certificates import Authority
from gatewaykit.pipeline import MEDIA

from disagfusion.errors import (
    InvalidArgumentError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
)
from disagfusion.rpc.auth import create_key
from disagfusion.rpc.channel import TlsSettings, open_channel
from disagfusion.rpc.errors import from_rpc_error
from disagfusion.rpc.tls import RenewedContext, channel_credentials
from disagfusion.v1 import generation_pb2 as pb


async def works(api: Any) -> None:
    end = await api.end_of((await api.submit()).job_id)
    assert end.state == pb.JOB_STATE_SUCCEEDED


async def test_no_key_and_a_wrong_key(bench: Any, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    key = create_key(keys, "acme")
    _, gateway, nobody = await bench.running(api_keys=keys)
    for api in (nobody, bench.api(api_key="dfk_guess")):
        for call in (api.submit, api.list, api.pipeline):
            with pytest.raises(UnauthenticatedError):
                await call()
        for call in (api.get, api.cancel, api.fetch, api.end_of):
            with pytest.raises(UnauthenticatedError):
                await call("some-job")
    known = bench.api(api_key=key)
    job = await known.submit()
    assert job.tenant == "acme"
    assert gateway.metric("disagfusion_jobs_total", outcome="failed") == 0
    await works(known)


async def test_tenants_see_only_their_own_jobs(bench: Any, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    first_key, second_key = create_key(keys, "acme"), create_key(keys, "umbra")
    stages, _, _ = await bench.running(api_keys=keys)
    first, second = bench.api(api_key=first_key), bench.api(api_key=second_key)
    gate = stages["dit-0"].hold("started")
    job = await first.submit(client_request_id="x")
    await gate.reached.wait()
    for call in (second.get, second.cancel, second.fetch, second.end_of):
        with pytest.raises(NotFoundError):
            await call(job.job_id)
    assert not (await second.list()).jobs
    assert (await first.get(job.job_id)).state == pb.JOB_STATE_DENOISING
    # The same request id of another tenant is another job.
    other = await second.submit(client_request_id="x")
    assert other.job_id != job.job_id
    gate.open()
    assert (await first.end_of(job.job_id)).state == pb.JOB_STATE_SUCCEEDED
    with pytest.raises(NotFoundError):
        await second.fetch(job.job_id)
    assert await first.fetch(job.job_id) == MEDIA
    assert [listed.job_id for listed in (await second.list()).jobs] == [other.job_id]


async def test_a_key_that_is_revoked(bench: Any, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    key = create_key(keys, "acme")
    _, _, _ = await bench.running(api_keys=keys)
    api = bench.api(api_key=key)
    await api.list()
    keys.write_text("")
    with pytest.raises(UnauthenticatedError):
        await api.list()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


async def with_tls(bench: Any, authority: Authority) -> tuple[str, TlsSettings]:
    tls = authority.issue("cluster")
    stages = await bench.stages(tls=tls)
    settings = {
        "tls_cert": tls.cert,
        "tls_key": tls.key,
        "tls_ca": tls.ca,
        "tls_server_name": tls.server_name,
    }
    gateway = await bench.gateway(workers=stages.workers, listen="127.0.0.1:0", **settings)
    return gateway.gateway.address, tls


async def test_mutual_tls_everywhere(bench: Any, authority: Authority) -> None:
    address, tls = await with_tls(bench, authority)
    await works(bench.api(address=address, tls=tls))
    await works(bench.api(address=address, tls=tls.model_copy(update={"server_name": ""})))


async def test_certificates_are_renewed_while_it_runs(
    bench: Any, authority: Authority, tmp_path: Path
) -> None:
    address, tls = await with_tls(bench, authority)
    await works(bench.api(address=address, tls=tls))
    successor = Authority(tmp_path, "successor")
    new = successor.issue("successor-cluster")
    # A file that is half written does no harm.
    tls.cert.write_bytes(new.cert.read_bytes()[:100])
    await works(bench.api(address=address, tls=authority.issue("old")))
    for path, by in ((tls.ca, new.ca), (tls.key, new.key), (tls.cert, new.cert)):
        path.write_bytes(by.read_bytes())
    await works(bench.api(address=address, tls=new))


def shown(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[bytes | None, bytes | None]:
    """What each side sees of the other's certificate: the client of the server's first."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(down, up, server_hostname="disagfusion.test"),
        server.wrap_bio(up, down, server_side=True),
    )
    left = list(ends)
    while left:
        for end in list(left):
            with contextlib.suppress(ssl.SSLWantReadError):
                end.do_handshake()
                left.remove(end)
    return ends[0].getpeercert(binary_form=True), ends[1].getpeercert(binary_form=True)


def test_the_data_planes_certificates_are_renewed(authority: Authority) -> None:
    tls, peer = authority.issue("worker"), authority.issue("peer")
    server = RenewedContext.of(tls, server=True)
    client = RenewedContext.of(peer, server=False)
    before = shown(server, client)
    assert shown(server, client) == before
    for mine, name in ((tls, "worker-again"), (peer, "peer-again")):
        new = authority.issue(name)
        mine.key.write_bytes(new.key.read_bytes())
        # Until both are there, what fits is used.
        assert shown(server, client)[0] is not None
        mine.cert.write_bytes(new.cert.read_bytes())
    after = shown(server, client)
    assert not set(before) & set(after)


async def test_wrong_certificates(bench: Any, authority: Authority, tmp_path: Path) -> None:
    address, tls = await with_tls(bench, authority)
    stranger = Authority(tmp_path, "stranger")
    without_tls = bench.api(address=address)
    of_a_stranger = bench.api(address=address, tls=stranger.issue("s", trusts=authority))
    trusts_a_stranger = bench.api(address=address, tls=authority.issue("t", trusts=stranger))
    for api in (without_tls, of_a_stranger, trusts_a_stranger):
        with pytest.raises(UnavailableError, match="cannot reach"):
            await api.submit()
    credentials = grpc.ssl_channel_credentials(tls.ca.read_bytes())
    async with grpc.aio.secure_channel(address, credentials) as without_certificate:
        with pytest.raises(grpc.RpcError) as caught:
            await without_certificate.unary_unary("/disagfusion.v1.GenerationService/GetJob")(b"")
    assert isinstance(from_rpc_error(caught.value), UnavailableError)
    await works(bench.api(address=address, tls=tls))


async def test_a_worker_with_a_wrong_certificate_gets_nothing(
    bench: Any, authority: Authority, tmp_path: Path
) -> None:
    stranger = Authority(tmp_path, "stranger")
    stages = await bench.stages(tls=stranger.issue("stages", trusts=authority))
    tls = authority.issue("gateway")
    await bench.gateway(
        workers=stages.workers,
        tls_cert=tls.cert,
        tls_key=tls.key,
        tls_ca=tls.ca,
        tls_server_name=tls.server_name,
        spec_wait_seconds=0.5,
    )
    with pytest.raises(UnavailableError, match="no worker"):
        await bench.api(tls=tls).submit()
    assert all(stage.counts["hellos"] == 0 for stage in stages.by_name.values())


@pytest.mark.parametrize("broken", ["cert", "key", "ca"])
def test_damaged_files_are_named(authority: Authority, broken: str) -> None:
    tls = authority.issue("x")
    path: Path = getattr(tls, broken)
    path.write_text("rubbish")
    with pytest.raises(InvalidArgumentError, match=str(path)):
        channel_credentials(tls)
    path.unlink()
    with pytest.raises(InvalidArgumentError, match=f"cannot read {path}"):
        channel_credentials(tls)


def test_a_key_that_does_not_fit(authority: Authority) -> None:
    tls = authority.issue("x").model_copy(update={"key": authority.issue("y").key})
    with pytest.raises(InvalidArgumentError, match="do not fit"):
        channel_credentials(tls)


async def test_random_bytes_on_the_port(bench: Any) -> None:
    stages = await bench.stages()
    gateway = await bench.gateway(workers=stages.workers, listen="127.0.0.1:0")
    address = gateway.gateway.address
    host, _, port = address.rpartition(":")
    gate = stages["dit-0"].hold("started")
    api = bench.api(address=address)
    job = await api.submit()
    await gate.reached.wait()
    for attempt in range(20):
        with socket.create_connection((host, int(port)), timeout=5) as raw:
            begin = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" if attempt % 2 else b""
            try:
                raw.sendall(begin + os.urandom(1 << attempt))
            except OSError:
                continue  # the gateway has hung up already
    gate.open()
    assert (await api.end_of(job.job_id)).state == pb.JOB_STATE_SUCCEEDED


async def test_invalid_utf8_in_a_prompt(bench: Any) -> None:
    _, gateway, api = await bench.running()
    generation = b"\x0a\x04\xff\xfe\xfd\xfc"
    raw = b"\x0a" + bytes([len(generation)]) + generation
    async with open_channel(gateway.gateway.address) as channel:
        call = channel.unary_unary("/disagfusion.v1.GenerationService/SubmitJob")
        with pytest.raises(grpc.RpcError) as caught:
            await call(raw)
    error = from_rpc_error(caught.value)
    assert isinstance(error, InvalidArgumentError)
    assert "UTF-8" in error.message
    assert not (await api.list()).jobs
    await works(api)


async def test_random_messages(bench: Any) -> None:
    _, gateway, api = await bench.running()
    codes = set()
    async with open_channel(gateway.gateway.address) as channel:
        for name in ("SubmitJob", "GetJob", "CancelJob", "ListJobs", "GetPipeline"):
            call = channel.unary_unary(f"/disagfusion.v1.GenerationService/{name}")
            for size in (0, 1, 2, 5, 10, 100, 1000):
                try:
                    await call(os.urandom(size))
                except grpc.RpcError as error:
                    codes.add(error.code())
    assert codes <= {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
    await works(api)
