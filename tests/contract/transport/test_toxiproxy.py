"""Over a proxy that others wrote to make networks bad."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from disagfusion.transport.address import StreamAddress
from disagfusion.transport.api import PeerAddress, PeerLostError
from disagfusion.transport.testing import make_message

from .conftest import End, Maker

TOXIPROXY = Path(__file__).parents[3] / ".tools" / "bin" / "toxiproxy"
NOT_LOST = {
    "slow to answer": [("latency", {"latency": 30, "jitter": 25})],
    "narrow": [("bandwidth", {"rate": 2000})],
    "in crumbs": [("slicer", {"average_size": 60, "size_variation": 40, "delay": 50})],
    "all at once": [
        ("latency", {"latency": 5, "jitter": 5}),
        ("slicer", {"average_size": 300, "size_variation": 200, "delay": 50}),
        ("bandwidth", {"rate": 5000}),
    ],
}
LOST = {
    "reset": ("reset_peer", {"timeout": 30}),
    "silent": ("timeout", {"timeout": 0}),
    "cut in the introduction": ("limit_data", {"bytes": 100}),
    "cut in the payload": ("limit_data", {"bytes": 5000}),
}


class Toxiproxy:
    """A running toxiproxy."""

    def __init__(self) -> None:
        assert TOXIPROXY.exists(), "run the tests with `make test`, which builds toxiproxy"
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self._url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [TOXIPROXY, "-host", "127.0.0.1", "-port", str(port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 20
        while True:
            try:
                self._ask("GET", "/version")
                return
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def before(self, end: End, *toxics: tuple[str, dict[str, int]]) -> PeerAddress:
        """Return the address of an end behind toxics in both directions."""
        address = end.transport.address
        where = StreamAddress.decode(address.data)
        upstream = f"{where.host}:{where.port}"
        # Another test's end may have had the same port.
        name = uuid4().hex
        proxy = {"name": name, "listen": "127.0.0.1:0", "upstream": upstream}
        listen = self._ask("POST", "/proxies", proxy)["listen"]
        for kind, attributes in toxics:
            for stream in ("upstream", "downstream"):
                toxic = {"type": kind, "stream": stream, "attributes": attributes}
                self._ask("POST", f"/proxies/{name}/toxics", toxic)
        port = int(listen.rpartition(":")[2])
        return replace(address, data=replace(where, port=port).encode())

    def _ask(self, method: str, path: str, content: object = None) -> dict[str, str]:
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self._url + path, body, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read()
        return json.loads(text) if text[:1] == b"{" else {}


@pytest.fixture(scope="module")
def proxies() -> Iterator[Toxiproxy]:
    running = Toxiproxy()
    yield running
    running.process.kill()
    running.process.wait()


@pytest.fixture(params=["tcp", "tcp+tls", "ucx"])
def maker(request: pytest.FixtureRequest, certificate: Path) -> Maker:
    return Maker(request.param, certificate)


@pytest.mark.parametrize("name", NOT_LOST)
async def test_a_bad_network_is_slow_and_nothing_else(
    maker: Maker, proxies: Toxiproxy, name: str
) -> None:
    payloads = [os.urandom(size) for size in (0, 1, 5_000, 20_000)]
    async with maker.end("r") as receiver, maker.end("s") as sender:
        address = proxies.before(receiver, *NOT_LOST[name])
        for number, payload in enumerate(payloads):
            message = make_message([payload], sender="s", message_id=f"m{number}")
            await sender.transport.send(address, message, timeout=20)
        assert list(receiver.inbox.messages.values()) == payloads
        assert sender.observer.sent_outcomes == {"delivered": len(payloads)}


@pytest.mark.parametrize("name", LOST)
async def test_a_network_that_breaks_is_reported(
    maker: Maker, proxies: Toxiproxy, name: str
) -> None:
    payload = os.urandom(20_000)
    quick = {"silence_seconds": 0.5, "connect_seconds": 1.0}
    async with maker.end("r", **quick) as receiver, maker.end("s", **quick) as sender:
        address = proxies.before(receiver, LOST[name])
        message = make_message([payload], sender="s")
        try:
            await sender.transport.send(address, message, timeout=20)
        except PeerLostError:
            await receiver.inbox.until_idle()
        else:
            # Over UCX the payload takes another way, and what is left may be little enough.
            assert maker.backend == "ucx"
            assert name in ("cut in the payload", "reset")
        direct = make_message([payload], sender="s", message_id="directly")
        await sender.transport.send(receiver.transport.address, direct, timeout=20)
        assert receiver.inbox.messages["directly"] == payload
        assert len(receiver.inbox.headers) == len(receiver.inbox.messages)
