"""Generate disagfusion/v1 from protos/.

Usage: python tools/generate_protos.py [--output DIR]
"""

from __future__ import annotations

import argparse
import sysconfig
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent


def generate(output: Path) -> None:
    """Write the Python modules and type stubs of every .proto file to `output`/disagfusion/v1."""
    files = sorted((ROOT / "protos" / "disagfusion" / "v1").glob("*.proto"))
    site = Path(sysconfig.get_paths()["purelib"])
    scripts = Path(sysconfig.get_paths()["scripts"])
    arguments = [
        "protoc",
        f"-I{ROOT / 'protos'}",
        f"-I{site}",
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
    (output / "disagfusion" / "v1" / "__init__.py").write_text(
        '"""Generated from protos/disagfusion/v1; never edited."""\n'
    )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT)
    generate(parser.parse_args().output)


if __name__ == "__main__":
    main()
