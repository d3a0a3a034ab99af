from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from disagfusion.transport import BACKENDS, create, probe
from disagfusion.transport.api import TransportError
from disagfusion.transport.testing import MemoryInbox


def test_what_works_here() -> None:
    ucx, tcp = probe()
    assert (ucx.backend, tcp.backend) == ("ucx", "tcp")
    assert ucx.available
    assert tcp.available
    assert {"tcp", "posix"} <= set(ucx.transports)
    assert ucx.detail.startswith("UCX 1.")


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TransportError, match="ucxx-cu13 is missing: pip install"):
        create("ucx", MemoryInbox(), incarnation="x")
    ucx, _ = probe()
    assert not ucx.available
    assert "ucxx-cu13" in ucx.detail


def test_ucx_that_does_not_start_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UCX_TLS", "no_such_transport")
    ucx, _ = probe()
    assert not ucx.available
    assert ucx.detail.startswith("UCX does not start: ")


def test_every_backend_has_its_name() -> None:
    for name in BACKENDS:
        assert create(name, MemoryInbox(), incarnation="x").backend == name


def test_a_process_that_moves_tensors_knows_neither_torch_nor_grpc() -> None:
    program = (
        "import sys, disagfusion.transport.backends.ucx, disagfusion.transport.backends.tcp,"
        " disagfusion.transport.backends.inproc, disagfusion.transport.testing;"
        "from disagfusion.transport.backends.ucx_native import library; library();"
        "sys.exit(bool({'torch', 'grpc', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], timeout=60, check=False)
    assert done.returncode == 0
