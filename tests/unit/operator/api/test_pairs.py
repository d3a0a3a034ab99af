"""No constraint is without a manifest that keeps it and one that does not."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from pathlib import Path
from types import ModuleType

import pytest
from disagfusion_operator.api.reading import read_pipeline

from disagfusion.errors import InvalidArgumentError

from .constraints import all_constraints


def _pairs() -> ModuleType:
    path = Path(__file__).parents[3] / "cluster" / "api" / "cases.py"
    spec = importlib.util.spec_from_file_location("pairs_of_manifests", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


CASES = list(_pairs().cases())
NAMES = Counter(case.constraint for case in CASES)


def test_every_constraint_has_a_pair() -> None:
    assert set(NAMES) == all_constraints()
    assert max(NAMES.values()) == 1


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.constraint)
def test_the_operator_reads_what_is_accepted(case: object) -> None:
    read_pipeline(case.accepted)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "case",
    # Rules between fields are the API server's alone.
    [case for case in CASES if ": " not in case.constraint.partition(".")[0]],
    ids=lambda case: case.constraint,
)
def test_the_operator_refuses_what_is_refused(case: object) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        read_pipeline(case.refused)  # type: ignore[attr-defined]
    assert refused.value.field.startswith("digits: spec")
