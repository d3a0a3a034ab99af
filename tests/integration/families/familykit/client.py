"""The test's side of the fork server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any


class Workers:
    """Calls functions of `familykit.workers`, each in a process of its own."""

    def __init__(self, directory: Path) -> None:
        self._socket = directory / "workers"
        environment = {
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "PYTHONWARNINGS": "ignore",
            "OMP_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "TQDM_DISABLE": "1",
        }
        self._log = (directory / "workers.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "familykit.server", str(self._socket)],
            env=environment,
            stdout=self._log,
            stderr=self._log,
        )

    def call(self, function: str, **arguments: Any) -> Any:
        """Return the function's result; raise with its traceback where it raised."""
        with self._connect() as connection, connection.makefile("rw", encoding="utf-8") as file:
            json.dump({"function": function, "arguments": arguments}, file)
            file.write("\n")
            file.flush()
            text = file.read()
        if not text:
            raise RuntimeError(f"{function}: the process died")
        answer = json.loads(text)
        if "error" in answer:
            raise RuntimeError(f"{function}: {answer['error']}")
        return answer["result"]

    def _connect(self) -> socket.socket:
        # The server listens once its imports are done.
        while True:
            connection = socket.socket(socket.AF_UNIX)
            connection.settimeout(110)
            try:
                connection.connect(str(self._socket))
            except (FileNotFoundError, ConnectionRefusedError):
                connection.close()
                if self._process.poll() is not None:
                    raise RuntimeError("the fork server ended") from None
                time.sleep(0.05)
            else:
                return connection

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(timeout=30)
        self._log.close()
