from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

# The kit is imported by the worker processes, too, so it is a package of its own.
sys.path.insert(0, str(Path(__file__).parent))

if TYPE_CHECKING:
    from familykit.client import Workers


@pytest.fixture(scope="session")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    from familykit.client import Workers

    server = Workers(tmp_path_factory.mktemp("workers"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each tiny model is built once, by the first test that needs it."""
    return tmp_path_factory.mktemp("models")
