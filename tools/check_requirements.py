"""Check the locks in requirements/ against pyproject.toml, without a network.

Each requirement is pinned and has hashes; no index, host or local path is named; what an extra
asks for is there in a version that it allows; and the locks agree with each other.

Usage: python tools/check_requirements.py [DIRECTORY]
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
# The lock and the extra it is for.
LOCKS = {
    "dev.txt": "dev",
    "stage.txt": "stage",
    "emulated.txt": "emulated",
    "gateway.txt": "gateway",
    "operator.txt": "operator",
    "sdk.txt": "",
}
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def entries(text: str) -> Iterator[str]:
    """Yield the requirements of a lock, continuation lines joined and comments removed."""
    lines = (line for line in text.splitlines() if not line.lstrip().startswith("#"))
    for entry in "\n".join(lines).replace("\\\n", " ").splitlines():
        if entry.strip():
            yield " ".join(entry.split())


def pins(text: str) -> dict[str, set[str]]:
    """Return the versions that a lock pins, by name; several where markers tell them apart."""
    found: dict[str, set[str]] = {}
    for entry in entries(text):
        if not entry.startswith("-"):
            requirement = Requirement(entry.split(" --hash", 1)[0])
            versions = {s.version for s in requirement.specifier if s.operator == "=="}
            found.setdefault(canonicalize_name(requirement.name), set()).update(versions)
    return found


def form_problems(name: str, text: str) -> Iterator[str]:
    """Yield what is wrong with a lock on its own."""
    for entry in entries(text):
        if entry.startswith("-"):
            yield f"{name}: an option: {entry}"
        elif not re.match(r"[A-Za-z0-9._\[\],-]+==[^ ;]+( |$)", entry):
            yield f"{name}: not pinned: {entry[:60]}"
        elif not _HASH.search(entry):
            yield f"{name}: no hash: {entry[:60]}"
    for number, line in enumerate(text.splitlines(), 1):
        if "://" in line or re.search(r"(^|\s)(/\w|~/|\.\./)", line):
            yield f"{name}:{number}: names a host or a path: {line.strip()}"


def wanted(project: dict[str, object], extra: str) -> Iterator[Requirement]:
    """Yield what an extra asks for, the extras that it names included."""
    dependencies = project["dependencies"]
    optional = project["optional-dependencies"]
    assert isinstance(dependencies, list)
    assert isinstance(optional, dict)
    for text in [*dependencies, *(optional[extra] if extra else [])]:
        requirement = Requirement(text)
        if requirement.name == project["name"]:
            for inner in requirement.extras:
                yield from wanted(project, inner)
        else:
            yield requirement


def problems(directory: Path) -> list[str]:
    """Return everything that is wrong with the locks in a directory."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: list[str] = []
    for path in sorted(directory.glob("*.txt")):
        found += form_problems(path.name, path.read_text())
    everything = pins((directory / "dev.txt").read_text())
    for name, extra in LOCKS.items():
        locked = pins((directory / name).read_text())
        for requirement in wanted(project, extra):
            versions = locked.get(canonicalize_name(requirement.name), set())
            if not any(requirement.specifier.contains(v, prereleases=True) for v in versions):
                found.append(f"{name}: {requirement} is not satisfied, run 'make lock'")
        found += [
            f"{name}: {package} is not as in dev.txt, run 'make lock'"
            for package, versions in locked.items()
            if not versions <= everything.get(package, set())
        ]
    return found


def main() -> None:
    """Run from the command line."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "requirements"
    if found := problems(directory):
        raise SystemExit("\n".join(found))


if __name__ == "__main__":
    main()
