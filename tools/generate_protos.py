"""Generate disagfusion/v1 from protos/.

Usage: python tools/generate_protos.py [--check | --output DIR]
"""

from __future__ import annotations

import argparse
import filecmp
import sysconfig
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path("disagfusion") / "v1"


def generate(output: Path) -> None:
    """Write the Python modules and type stubs of every .proto file to `output`/disagfusion/v1."""
    files = sorted((ROOT / "protos" / PACKAGE).glob("*.proto"))
    site = Path(sysconfig.get_paths()["purelib"])
    scripts = Path(sysconfig.get_paths()["scripts"])
    arguments = [
        "protoc",
        f"-I{ROOT / 'protos'}",
        f"-I{site / 'grpc_tools' / '_proto'}",
        f"--plugin=protoc-gen-mypy={scripts / 'protoc-gen-mypy'}",
        f"--plugin=protoc-gen-mypy_grpc={scripts / 'protoc-gen-mypy_grpc'}",
        f"--python_out={output}",
        f"--mypy_out=quiet:{output}",
        f"--grpc_python_out={output}",
        f"--mypy_grpc_out=quiet:{output}",
        *(str(file) for file in files),
    ]
    if protoc.main(arguments) != 0:
        raise SystemExit("protoc failed")
    (output / PACKAGE / "__init__.py").write_text(
        '"""Generated from protos/disagfusion/v1; never edited."""\n'
    )


def differences() -> list[str]:
    """Return the names of generated files that differ from the ones checked in."""
    with tempfile.TemporaryDirectory() as directory:
        generate(Path(directory))
        fresh, checked_in = Path(directory) / PACKAGE, ROOT / PACKAGE
        names = sorted(
            {path.name for folder in (fresh, checked_in) for path in folder.glob("*.py*")}
        )
        _, different, missing = filecmp.cmpfiles(fresh, checked_in, names, shallow=False)
        return sorted(different + missing)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare with what is checked in")
    parser.add_argument("--output", type=Path, default=ROOT)
    arguments = parser.parse_args()
    if not arguments.check:
        generate(arguments.output)
    elif different := differences():
        raise SystemExit(f"not as generated, run 'make proto': {', '.join(different)}")


if __name__ == "__main__":
    main()
