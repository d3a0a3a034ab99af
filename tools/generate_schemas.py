"""Generate the JSON Schemas in schemas/ from the documents' models.

Usage: python tools/generate_schemas.py [--check]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from disagfusion.cli.schema import NAMES, render

SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"


def main() -> None:
    """Write the schemas, or compare what is there with what would be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="only compare")
    check = parser.parse_args().check
    SCHEMAS.mkdir(exist_ok=True)
    stale = []
    for name in NAMES:
        path = SCHEMAS / f"{name}.json"
        text = render(name)
        if check:
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                stale.append(path.name)
        else:
            path.write_text(text, encoding="utf-8")
    strange = {path.name for path in SCHEMAS.iterdir()} - {f"{name}.json" for name in NAMES}
    if stale or strange:
        names = ", ".join([*stale, *sorted(strange)])
        raise SystemExit(f"schemas/ differs from the models ({names}): run `make docs`")


if __name__ == "__main__":
    main()
