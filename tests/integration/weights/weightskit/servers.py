"""A model hub, and an object store, as far as fetching needs them; and all that can be wrong."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "acme/digits"
_LARGE = 16 << 10
_CHUNK = 64 << 10


@dataclass
class Fault:
    """What is wrong with a file, for so many answers.

    Attributes:
        times: How often; then all is well.
        status: Answered instead.
        cut: Bytes after which the connection ends.
        change: Of the content.
        pause: Called before each piece.
    """

    times: int = 1
    status: int = 0
    cut: int = -1
    change: Callable[[bytes], bytes] = lambda content: content
    pause: Callable[[], None] = lambda: None


@dataclass
class Server:
    """A server of a directory's files.

    Attributes:
        directory: What is served.
        token: Who asks must have it; nobody need where it is empty.
        gated: Whether the token is not enough.
        faults: By path.
        requests: Method, path, range and authorization of each.
    """

    directory: Path
    token: str = ""
    gated: bool = False
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    requests: list[tuple[str, str, str, str]] = field(default_factory=list)
    url: str = ""
    cdn: str = ""

    def files(self) -> dict[str, bytes]:
        return {
            path.relative_to(self.directory).as_posix(): path.read_bytes()
            for path in sorted(self.directory.rglob("*"))
            if path.is_file()
        }

    def fault(self, path: str) -> Fault | None:
        waiting = self.faults.get(path, [])
        if not waiting:
            return None
        waiting[0].times -= 1
        return waiting.pop(0) if waiting[0].times <= 0 else waiting[0]

    def asked(self, path: str) -> list[str]:
        """The ranges with which a file was asked for, "" for all of it."""
        return [bytes_ for _, asked, bytes_, _ in self.requests if asked.endswith(path)]


def _entry(path: str, content: bytes) -> dict[str, object]:
    sha1 = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
    entry: dict[str, object] = {
        "rfilename": path, "size": len(content), "blobId": sha1.hexdigest(),
    }  # fmt: skip
    if len(content) > _LARGE:
        sha256 = hashlib.sha256(content).hexdigest()
        entry["lfs"] = {"sha256": sha256, "size": len(content), "pointerSize": 134}
        entry["blobId"] = hashlib.sha1(b"pointer", usedforsecurity=False).hexdigest()
    return entry


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: Server

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        served = self.served
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        authorization = self.headers.get("Authorization", "")
        served.requests.append((self.command, path, self.headers.get("Range", ""), authorization))
        if path.startswith("/cdn/"):
            # As object stores do: they know nothing of the hub's tokens.
            if authorization or parse_qs(parts.query) != {"signature": ["s3cret"]}:
                self.refuse(400, "InvalidRequest")
            else:
                self.file(path.removeprefix("/cdn/"))
        elif path.startswith("/store/"):
            self.file(path.removeprefix("/store/"))
        elif served.token and authorization != f"Bearer {served.token}":
            self.refuse(401, "RepoNotFound")
        elif served.gated:
            self.refuse(403, "GatedRepo")
        else:
            self.hub(path)

    def hub(self, path: str) -> None:
        served = self.served
        api = f"/api/models/{REPOSITORY}"
        content = served.files()
        if path.startswith("/api/models/") and not path.startswith(api):
            self.refuse(404, "RepoNotFound")
        elif path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
            siblings = [_entry(name, data) for name, data in content.items()]
            self.answer(json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}))
        elif path.startswith(api):
            self.refuse(404, "RevisionNotFound")
        elif path.startswith(f"/{REPOSITORY}/resolve/"):
            name = path.removeprefix(f"/{REPOSITORY}/resolve/").partition("/")[2]
            if name not in content:
                self.refuse(404, "EntryNotFound")
            elif len(content[name]) > _LARGE:
                self.redirect(name, content[name])
            else:
                self.file(name)
        else:
            self.refuse(404, "")

    def redirect(self, name: str, content: bytes) -> None:
        self.send_response(302)
        self.send_header("Location", f"{self.served.cdn}/cdn/{name}?signature=s3cret")
        self.send_header("X-Linked-Size", str(len(content)))
        self.send_header("X-Linked-ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def file(self, name: str) -> None:
        path = self.served.directory / name
        if not path.is_file():
            self.refuse(404, "")
            return
        fault = self.served.fault(name) or Fault()
        if fault.status:
            self.refuse(fault.status, "")
            return
        original = path.read_bytes()
        content = fault.change(original)
        begin = int((self.headers.get("Range") or "bytes=0-")[6:].split("-")[0])
        self.send_response(206 if begin else 200)
        if begin:
            self.send_header("Content-Range", f"bytes {begin}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - begin))
        self.send_header("ETag", f'"{hashlib.sha256(original).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "HEAD":
            return
        end = len(content) if fault.cut < 0 else min(len(content), begin + fault.cut)
        for at in range(begin, end, _CHUNK):
            fault.pause()
            try:
                self.wfile.write(content[at : min(end, at + _CHUNK)])
            except OSError:
                self.close_connection = True
                return
        self.close_connection = end < len(content)

    def answer(self, body: str) -> None:
        data = body.encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()


class _Threads(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that were killed are no news."""


@contextmanager
def serving(directory: Path) -> Iterator[Server]:
    """Serve a directory as repository, its large files from another address, and as a store."""
    served = Server(directory)
    handler = type("Handler", (_Handler,), {"served": served})
    servers = [_Threads(("127.0.0.1", 0), handler) for _ in range(2)]
    threads = [threading.Thread(target=server.serve_forever) for server in servers]
    for thread in threads:
        thread.start()
    served.url, served.cdn = (f"http://127.0.0.1:{server.server_port}" for server in servers)
    try:
        yield served
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
        for thread in threads:
            thread.join()
