from __future__ import annotations

from pathlib import Path

import pytest
from disagfusion_gateway.settings import GatewaySettings, WorkerAddress

from disagfusion.errors import InvalidArgumentError


def test_workers() -> None:
    settings = GatewaySettings(workers=" a=unix:/tmp/a , b=h:1,dns:decoder:50, ")
    assert settings.worker_addresses() == (
        WorkerAddress(name="a", address="unix:/tmp/a"),
        WorkerAddress(name="b", address="h:1"),
        WorkerAddress(name="", address="decoder:50", dns=True),
    )


@pytest.mark.parametrize("workers", ["a", "=h:1", "a=", "a=h", "dns:h", "dns:", "a=h:x"])
def test_workers_that_are_refused(workers: str) -> None:
    with pytest.raises(InvalidArgumentError, match="workers"):
        GatewaySettings(workers=workers).worker_addresses()


def test_empty_means_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("API_KEYS", "TLS_CERT", "READY_FILE", "RETENTION_JOB_SECONDS"):
        monkeypatch.setenv(f"DISAGFUSION_{name}", "")
    settings = GatewaySettings()
    assert settings.api_keys is None
    assert settings.tls is None
    assert settings.ready_file is None
    assert settings.retention.job_seconds is None


def test_tls_is_all_or_nothing() -> None:
    with pytest.raises(InvalidArgumentError, match="tls_ca"):
        _ = GatewaySettings(tls_cert=Path("/c"), tls_key=Path("/k")).tls
