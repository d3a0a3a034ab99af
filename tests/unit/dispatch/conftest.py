from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from dispatchkit.desk import D, Desk, E, K


@pytest.fixture
def desk() -> Desk:
    """A dispatcher with one worker of each stage."""
    desk = Desk()
    desk.connect("e", E)
    desk.connect("d", D)
    desk.connect("k", K)
    return desk
