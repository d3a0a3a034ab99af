"""A machine whose engine is ready and whose gateway is connected."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from stagerig import Rig


@pytest.fixture
def rig() -> Rig:
    return Rig().ready()
