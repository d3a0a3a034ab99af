"""One embedded system for all tests of this directory: it takes seconds to start."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from disagfusion.local import LocalRuntime


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def runtime(data_dir: Path) -> Iterator[LocalRuntime]:
    with LocalRuntime(data_dir=data_dir, dits=2) as running:
        yield running
