"""Probes of the operator, on a thread of its own: a loop that hangs does not answer for itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from disagfusion.errors import FailedPreconditionError


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a probe is told.

    Attributes:
        well: Whether all is well.
        message: A word or a sentence for people.
    """

    well: bool
    message: str = "ok"


class Vitals:
    """Signs of life.

    Args:
        clock: Seconds that only grow.
        stalled: Seconds after which a sign is missed.
    """

    def __init__(self, clock: Callable[[], float], stalled: float) -> None:
        self._clock = clock
        self._stalled = stalled
        self._beat = clock()
        self._overdue: Callable[[], float] = float
        self.leads = False
        self.ready = False

    def beat(self) -> None:
        """Give a sign of life of the event loop."""
        self._beat = self._clock()

    def follow(self, overdue: Callable[[], float]) -> None:
        """Have reconciling watched: this returns for how many seconds a look is overdue."""
        self._overdue = overdue

    def alive(self) -> Verdict:
        """Tell whether the process should go on."""
        silence = self._clock() - self._beat
        if silence > self._stalled:
            return Verdict(False, f"the event loop has done nothing for {silence:.0f} s")
        if self.leads and (late := self._overdue()) > self._stalled:
            return Verdict(False, f"no look at a pipeline has ended for {late:.0f} s")
        return Verdict(True)

    def prepared(self) -> Verdict:
        """Tell whether the process can do its work, or take over at once."""
        if not self.ready:
            return Verdict(False, "starting")
        return Verdict(True, "leads" if self.leads else "stands by")


class HealthServer:
    """Serves `/healthz` and `/readyz`.

    Args:
        listen: `host:port`.
        vitals: What is told.

    Raises:
        FailedPreconditionError: The address is in use or not usable.
    """

    def __init__(self, listen: str, vitals: Vitals) -> None:
        host, _, port = listen.rpartition(":")
        verdicts = {"/healthz": vitals.alive, "/readyz": vitals.prepared}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                judge = verdicts.get(self.path.partition("?")[0])
                found = judge() if judge else None
                status = 404 if found is None else 200 if found.well else 503
                text = (found.message if found else "not found").encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain; charset=utf-8")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing: probes come every few seconds."""

        try:
            self._server = ThreadingHTTPServer((host.strip("[]"), int(port)), Handler)
        except (OSError, ValueError) as error:
            raise FailedPreconditionError(
                f"cannot serve health on {listen}: {error}", reason="ADDRESS_UNUSABLE"
            ) from error
        self._server.daemon_threads = True
        self.address = f"{host}:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Answer no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
