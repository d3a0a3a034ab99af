"""The distribution: its extras, and what importing the light parts pulls in."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from importlib import metadata

import pytest
from packaging.requirements import Requirement

from disagfusion import __version__

HEAVY = {"torch", "diffusers", "transformers", "accelerate", "torchvision"}


def imported_by(statement: str) -> set[str]:
    program = f"{statement}\nimport sys, json\nprint(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100, check=True
    )
    return {name.split(".")[0] for name in json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("disagfusion.client", HEAVY | {"numpy", "sqlalchemy", "ucxx", "opentelemetry"}),
        ("disagfusion.cli.app", HEAVY | {"sqlalchemy", "ucxx", "opentelemetry"}),
        ("disagfusion.local", HEAVY | {"grpc", "ucxx", "sqlalchemy", "numpy"}),
        ("disagfusion.local.__main__", HEAVY | {"grpc", "ucxx", "sqlalchemy", "numpy"}),
        ("disagfusion_gateway.__main__", HEAVY | {"ucxx"}),
        ("disagfusion_encoder.__main__", HEAVY | {"sqlalchemy"}),
        ("disagfusion_dit.__main__", HEAVY | {"sqlalchemy"}),
        ("disagfusion_decoder.__main__", HEAVY | {"sqlalchemy"}),
    ],
)
def test_importing_a_light_part_pulls_in_nothing_heavy(module: str, forbidden: set[str]) -> None:
    assert imported_by(f"import {module}") & forbidden == set()


def test_the_probe_sees_a_heavy_import() -> None:
    assert "numpy" in imported_by("import numpy")


def test_the_extras_are_those_of_the_design() -> None:
    extras = set(metadata.metadata("disagfusion").get_all("Provides-Extra") or ())
    assert extras == {"stage", "emulated", "gateway", "local", "operator", "planner", "dev"}


def test_the_light_sdk_asks_for_nothing_heavy() -> None:
    requirements = [Requirement(text) for text in metadata.requires("disagfusion") or ()]
    base = {requirement.name for requirement in requirements if requirement.marker is None}
    assert "grpcio" in base
    assert not base & (HEAVY | {"numpy", "sqlalchemy", "ucxx-cu13", "opentelemetry-sdk"})


def test_there_is_one_version() -> None:
    assert metadata.version("disagfusion") == __version__


def test_no_two_distributions_install_the_same_file() -> None:
    # Which of the two is there would depend on the order of installation.
    owners: dict[str, str] = {}
    for distribution in metadata.distributions():
        name = distribution.metadata["Name"]
        for file, *_ in csv.reader((distribution.read_text("RECORD") or "").splitlines()):
            if not file.startswith("..") and "__pycache__" not in file:
                assert owners.setdefault(file, name) == name, file
