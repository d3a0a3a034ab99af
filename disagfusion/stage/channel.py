"""The engine's end of the socket pair: blocking, with threads of its own for what must not wait."""

from __future__ import annotations

import os
import queue
import socket
import threading
from collections import deque
from collections.abc import Callable

from disagfusion.stage.framing import Decoder, FramingError, encode
from disagfusion.stage.memory import SharedMemory
from disagfusion.telemetry.logging import get_logger
from disagfusion.v1 import engine_pb2, stage_pb2

_HEARTBEAT_SECONDS = 1.0
_CHUNK = 1 << 18

_log = get_logger(__name__)


def attach_message(memory: SharedMemory) -> bytes:
    """Return what a front sends first, together with the memory's descriptor."""
    attach = engine_pb2.AttachMemory(size_bytes=memory.nbytes)
    return encode(engine_pb2.EngineRequest(attach=attach))


class EngineChannel:
    """Talks to the front. When the front goes, this process ends.

    Args:
        sock: A connected stream socket.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._sending = threading.Lock()
        self._decoder = Decoder(engine_pb2.EngineRequest)
        # At most the run that is next; the one under way has been taken out.
        self._runs: deque[engine_pb2.RunStage] = deque()
        self._arrived = threading.Condition()
        self._spaces: queue.SimpleQueue[engine_pb2.GiveSpace] = queue.SimpleQueue()
        self._cancelled: set[int] = set()

    def attach(self) -> SharedMemory:
        """Receive the memory; the first thing to do.

        Raises:
            FramingError: Something else came.
            EOFError: The front has gone.
        """
        received: list[engine_pb2.EngineRequest] = []
        descriptors: list[int] = []
        while not received:
            data, fds, _, _ = socket.recv_fds(self._socket, _CHUNK, 1)
            descriptors += fds
            if not data:
                raise EOFError("the front has gone")
            received += self._decoder.feed(data)
        first, *rest = received
        if first.WhichOneof("message") != "attach" or len(descriptors) != 1:
            raise FramingError("the first message is not that of the memory")
        for request in rest:
            self._dispatch(request)
        return SharedMemory.attach(descriptors[0], first.attach.size_bytes)

    def start(self) -> None:
        """Begin to listen and to give signs of life."""
        for work in (self._read, self._beat):
            threading.Thread(target=work, name=work.__name__, daemon=True).start()

    def send(self, **message: object) -> None:
        """Say something to the front; this process ends where there is none."""
        data = encode(engine_pb2.EngineResponse(**message))  # type: ignore[arg-type]
        try:
            with self._sending:
                self._socket.sendall(data)
        except OSError:
            os._exit(0)

    def next_run(self) -> engine_pb2.RunStage:
        """Wait for the next run."""
        with self._arrived:
            while not self._runs:
                self._arrived.wait()
            run = self._runs.popleft()
            # Runs are numbered in order: what came before has ended.
            self._cancelled = {run_id for run_id in self._cancelled if run_id >= run.run_id}
            return run

    def space(self, run_id: int, nbytes: int) -> engine_pb2.GiveSpace:
        """Return room for an output; ask for it and wait where none was given yet."""
        asked = False
        while True:
            try:
                space = self._spaces.get(block=asked)
            except queue.Empty:
                asked = True
                self.send(need_space=engine_pb2.NeedSpace(run_id=run_id, size_bytes=nbytes))
                continue
            enough = space.offset < 0 or space.size_bytes >= nbytes
            # What was given early may be too little, or meant for a run that has failed.
            if space.run_id == run_id and enough:
                return space

    def canceller(self, run_id: int) -> Callable[[], bool]:
        """Return a function that tells whether a run is to be stopped."""
        return lambda: run_id in self._cancelled

    def _read(self) -> None:
        try:
            while data := self._socket.recv(_CHUNK):
                for request in self._decoder.feed(data):
                    self._dispatch(request)
        except (OSError, FramingError) as error:
            _log.error("the front is not understood", problem=str(error))
        # Nobody is left to compute for; what runs is of no use.
        os._exit(0)

    def _dispatch(self, request: engine_pb2.EngineRequest) -> None:
        match request.WhichOneof("message"):
            case "run":
                with self._arrived:
                    self._runs.append(request.run)
                    self._arrived.notify()
            case "space":
                self._spaces.put(request.space)
            case "cancel":
                self._cancel(request.cancel.run_id)
            case other:
                raise FramingError(f"unexpected message {other}")

    def _cancel(self, run_id: int) -> None:
        with self._arrived:
            waiting = [run for run in self._runs if run.run_id == run_id]
            for run in waiting:
                self._runs.remove(run)
            self._cancelled.add(run_id)
        for run in waiting:
            kind = stage_pb2.FAILURE_KIND_CANCELLED
            failed = engine_pb2.RunFailed(run_id=run.run_id, kind=kind, message="cancelled")
            self.send(failed=failed)

    def _beat(self) -> None:
        pause = threading.Event()
        while not pause.wait(_HEARTBEAT_SECONDS):
            self.send(heartbeat=engine_pb2.EngineHeartbeat())
