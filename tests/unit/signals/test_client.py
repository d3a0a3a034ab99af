"""The HTTP side, against servers that misbehave: no answer of theirs becomes a value."""

from __future__ import annotations

import base64
import socket
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import ValidationError

from disagfusion.errors import InvalidArgumentError, UnavailableError
from disagfusion.scheduling.observation import Fresh, Invalid, Missing, Signal, Stale
from disagfusion.scheduling.prometheus.answers import Answer, Outcome, signal, whole
from disagfusion.scheduling.prometheus.queries import QUERIES, QUEUED, Scope
from disagfusion.signals.prometheus import PrometheusClient, PrometheusSignals
from disagfusion.signals.settings import PrometheusSettings

from .conftest import Certificate, Server, vector

SCOPE = Scope("p", stale=10.0)


def ask(url: str, **settings: Any) -> Outcome:
    return PrometheusClient(PrometheusSettings(url=url, **settings)).ask(QUEUED, SCOPE)


def value(outcome: Outcome) -> Signal[int]:
    return signal(outcome, (), SCOPE, 100.0, whole)


def test_a_value_comes_with_its_query(server: Server) -> None:
    server.say(vector("3", age=2.5, key={}))
    found = value(ask(server.url + "/prom/"))
    assert isinstance(found, Fresh)
    assert (found.value, found.at) == (3, pytest.approx(97.5, abs=1e-3))
    path, headers = server.seen[0]
    assert urlsplit(path).path == "/prom/api/v1/query"
    assert parse_qs(urlsplit(path).query) == {"query": [QUEUED.request(SCOPE)]}
    assert "authorization" not in headers


@pytest.mark.parametrize("status", [204, 301, 302, 400, 401, 404, 429, 500, 503])
def test_a_status_other_than_200_is_missing(server: Server, status: int) -> None:
    server.say(vector("0", key={}), status, Location=f"{server.url}/elsewhere")
    found = ask(server.url)
    assert isinstance(found, Missing)
    assert str(status) in found.why
    assert len(server.seen) == 1, "redirects are not followed"


@pytest.mark.parametrize("content", [b"", b"<html>", vector("0", key={})[:-5], b"\x00" * 50])
def test_garbage_is_invalid(server: Server, content: bytes) -> None:
    server.say(content)
    assert isinstance(ask(server.url), Invalid)


def test_an_answer_that_breaks_off_is_missing(server: Server) -> None:
    whole = vector("0", key={})
    server.say(whole[:40], Content_Length=str(len(whole)))
    found = ask(server.url)
    assert isinstance(found, Missing), found
    server.say(b"", Content_Length="no number")
    assert isinstance(ask(server.url), Missing | Invalid)


def test_an_answer_that_is_too_long_is_missing(server: Server) -> None:
    server.say(b" " * 5000 + vector("0", key={}))
    found = ask(server.url, max_answer_bytes=4096)
    assert isinstance(found, Missing)
    assert "longer than 4096 bytes" in found.why


def test_nobody_who_listens_is_missing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    found = ask(f"http://127.0.0.1:{port}")
    assert isinstance(found, Missing)
    assert "refused" in found.why
    assert isinstance(ask("http://nowhere.invalid:9090"), Missing)


def test_who_accepts_and_says_nothing_is_missing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        found = ask(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout_seconds=0.05)
    assert isinstance(found, Missing)
    assert "no answer in 0.05 s" in found.why


@pytest.mark.parametrize("start", [b"", b"HTTP/1.1 200 OK\r\nX-Long: ", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_who_sends_a_byte_at_a_time_is_missing(server: Server, start: bytes) -> None:
    done = threading.Event()

    def drip(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(start)
        while not done.wait(0.01):
            request.wfile.write(b" ")
            request.wfile.flush()

    server.reply = drip
    try:
        found = ask(server.url, timeout_seconds=0.2)
    finally:
        done.set()
    assert isinstance(found, Missing)
    assert "answer in 0.2 s" in found.why


def test_who_speaks_no_http_is_missing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as odd:

        def answer() -> None:
            connection, _ = odd.accept()
            with connection:
                connection.recv(100)
                connection.sendall(b"220 mail.example ESMTP\r\n" * 20)

        thread = threading.Thread(target=answer)
        thread.start()
        found = ask(f"http://127.0.0.1:{odd.getsockname()[1]}", timeout_seconds=5.0)
        thread.join()
    assert isinstance(found, Missing)


def test_an_answer_from_a_cache_or_a_wrong_clock_is_missing(server: Server) -> None:
    for off in (-3600.0, 3600.0):
        server.say(vector("0", at=time.time() + off, key={}))
        found = ask(server.url)
        assert isinstance(found, Missing)
        assert "another time" in found.why


def test_an_old_sample_is_stale(server: Server) -> None:
    server.say(vector("4", age=11.0, key={}))
    found = value(ask(server.url))
    assert isinstance(found, Stale)
    assert found.value == 4


def test_credentials_are_sent_and_files_read_anew(server: Server, tmp_path: Path) -> None:
    server.say(vector("0", key={}))
    ask(server.url, basic_auth={"username": "u", "password": "pä"})
    expected = base64.b64encode("u:pä".encode()).decode()
    assert server.seen[-1][1]["authorization"] == f"Basic {expected}"
    token = tmp_path / "token"
    settings = PrometheusSettings.model_validate(
        {
            "url": server.url,
            "authorization": {"credentials_file": token},
            "http_headers": {"X-Scope-OrgID": "prod"},
        }
    )
    client = PrometheusClient(settings)
    assert isinstance(client.ask(QUEUED, SCOPE), Missing), "no token, no question"
    for text in ("first\n", "second"):
        token.write_text(text)
        assert isinstance(client.ask(QUEUED, SCOPE), Answer)
        assert server.seen[-1][1]["authorization"] == f"Bearer {text.strip()}"
        assert server.seen[-1][1]["x-scope-orgid"] == "prod"
    token.write_text("a\r\nX-Other: b")
    assert isinstance(client.ask(QUEUED, SCOPE), Missing)


def test_secrets_are_not_shown() -> None:
    settings = PrometheusSettings.model_validate(
        {"url": "http://p:9090", "basic_auth": {"username": "u", "password": "hush"}}
    )
    assert "hush" not in repr(settings)


def test_tls_verifies_the_server(server: Server, certificate: Certificate) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.cert, certificate.key)
    server.http.socket = context.wrap_socket(server.http.socket, server_side=True)
    server.say(vector("2", key={}))
    url = server.url.replace("http:", "https:")
    ours = {"ca_file": certificate.cert}
    trusted = {**ours, "server_name": "prometheus.test"}
    found = value(ask(url, tls_config=trusted))
    assert isinstance(found, Fresh)
    assert isinstance(value(ask(url, tls_config={"insecure_skip_verify": True})), Fresh)
    for wrong in ({}, ours, {**ours, "server_name": "other.test"}):
        refused = ask(url, tls_config=wrong)
        assert isinstance(refused, Missing), wrong
        assert "CERTIFICATE_VERIFY_FAILED" in refused.why
    assert isinstance(ask(server.url), Missing), "TLS without being asked for it"


@pytest.mark.parametrize("field", ["ca_file", "cert_file"])
def test_a_file_that_is_no_certificate_is_refused(tmp_path: Path, field: str) -> None:
    bad = tmp_path / "bad.pem"
    bad.write_text("nothing")
    files = {"ca_file": bad} if field == "ca_file" else {"cert_file": bad, "key_file": bad}
    with pytest.raises(InvalidArgumentError) as refused:
        ask("https://127.0.0.1:1", tls_config=files)
    assert refused.value.field == f"tls_config.{field}"


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "ftp://p"},
        {"url": "p:9090"},
        {"url": "http://"},
        {"url": "http://p:port"},
        {"url": "http://u:p@p:9090"},
        {"url": "http://p?x=1"},
        {"url": "http://p", "timeout_seconds": 0},
        {"url": "http://p", "timeout_seconds": "inf"},
        {"url": "http://p", "tls": {}},
        {"url": "http://p", "tls_config": {"cert_file": "c"}},
        {"url": "http://p", "basic_auth": {"username": "u"}},
        {"url": "http://p", "basic_auth": {"username": "u:v", "password": "p"}},
        {"url": "http://p", "authorization": {}},
        {
            "url": "http://p",
            "authorization": {"credentials": "t"},
            "basic_auth": {"username": "u", "password": "p"},
        },
    ],
)
def test_settings_that_contradict_themselves_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        PrometheusSettings.model_validate(settings)


def test_every_query_is_asked_and_a_dead_server_gives_no_observation(server: Server) -> None:
    server.say(b"{}", 503)
    with PrometheusSignals(
        PrometheusSettings(url=server.url), SCOPE, stages=("encoder", "dit")
    ) as signals:
        found = signals.read(1.0)
        assert len(server.seen) == len(QUERIES)
        assert isinstance(found.arrivals, Missing)
        assert all(isinstance(count, Missing) for count in found.waiting.values())
        with pytest.raises(UnavailableError) as refused:
            signals.observe(1.0, {})
    assert refused.value.reason == "SIGNALS_MISSING"
