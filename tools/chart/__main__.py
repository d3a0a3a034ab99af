"""Generate the chart's definition, values and schema, and the reference pages of both.

Usage: python -m tools.chart [--check]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from tools.chart import definition, rendering

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "disagfusion"
FILES: dict[Path, Callable[[], str]] = {
    CHART / "definitions" / "diffusionpipelines.yaml": definition.definition_file,
    CHART / "values.yaml": rendering.values_file,
    CHART / "values.schema.json": rendering.schema_file,
    ROOT / "docs" / "kubernetes" / "reference.md": definition.reference_page,
    ROOT / "docs" / "kubernetes" / "values.md": rendering.values_page,
}


def main() -> None:
    """Write the files, or compare what is there with what would be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare")
    check = parser.parse_args().check
    for path, make in FILES.items():
        if not check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(make(), encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != make():
            raise SystemExit(f"{path.relative_to(ROOT)} is not as generated: run `make docs`")


if __name__ == "__main__":
    main()
