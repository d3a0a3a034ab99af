"""What runs in the pods of the tests: it says who asks, and ends in good order.

Port 7000 answers each line with the pod's name, the caller's address and the line; port 8080 serves
`/ready`, which is true until SIGTERM.
"""

from __future__ import annotations

import http.server
import os
import signal
import socketserver
import sys
import threading

NAME = os.environ.get("POD_NAME", "?")
DONE = threading.Event()


class Echo(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        for line in self.rfile:
            self.wfile.write(f"{NAME} {self.client_address[0]} ".encode() + line)
            self.wfile.flush()


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True


class Ready(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(503 if DONE.is_set() else 200)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Probes are of no interest."""


def ask(host: str, port: int = 7000) -> str:
    """Return what the app at an address answers."""
    import socket

    with socket.create_connection((host, port), 5) as connection:
        connection.sendall(b"hello\n")
        return connection.makefile().readline().strip()


def main() -> None:
    echo = Server(("0.0.0.0", 7000), Echo)
    ready = http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Ready)
    for server in (echo, ready):
        threading.Thread(target=server.serve_forever, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: DONE.set())
    print("serving", flush=True)
    DONE.wait()
    print("drained", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["ask"]:
        print(ask(sys.argv[2]))
    else:
        main()
