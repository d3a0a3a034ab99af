import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]

# The example's scripts import each other by name, as scripts in one folder do.
sys.path.insert(0, str(ROOT / "examples" / "digits"))


@pytest.fixture(scope="session")
def model() -> Path:
    return ROOT / "disagfusion" / "local" / "digits"


@pytest.fixture(scope="session")
def reader():
    from digitkit.pictures import load_split
    from digitkit.reading import DigitReader

    return DigitReader.fit(*load_split())
