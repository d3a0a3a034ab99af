"""Says, inside of an image, what a process of it can do. Needs nothing but Python."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

PROGRAMS = (
    *("c++", "cc", "clang", "cmake", "cpp", "g++", "gcc", "ld", "make", "nvcc", "rustc"),
    *("buildah", "curl", "docker", "git", "pip", "pip3", "uv", "wget"),
)
MODULES = ("ensurepip", "pip", "uv", "hatchling", "pytest", "grpc_tools")
DIRECTORIES = ("/", "/etc", "/opt/disagfusion", "/usr", "/dev/shm", "/tmp", os.getcwd())


def writable(directory: str) -> bool:
    """Return whether a file can be made in a directory."""
    try:
        with tempfile.TemporaryFile(dir=directory):
            return True
    except OSError:
        return False


def importable(module: str) -> bool:
    """Return whether a module is there; it is not imported."""
    return importlib.util.find_spec(module) is not None


def main() -> None:
    """Print the facts as JSON."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    heavy = [name for name in ("torch", "diffusers", "ucxx", "sklearn") if importable(name)]
    facts = {
        "user": f"{os.getuid()}:{os.getgid()}",
        "groups": os.getgroups(),
        "capabilities": status["CapEff"].strip(),
        "writable": [name for name in DIRECTORIES if writable(name)],
        "programs": [name for name in PROGRAMS if shutil.which(name)],
        "modules": [name for name in MODULES if importable(name)],
        "packages": heavy,
        "python": ".".join(map(str, sys.version_info[:3])),
    }
    print(json.dumps(facts))


if __name__ == "__main__":
    main()
