"""The examples are pipelines that the operator can plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.api.reading import read_pipeline
from disagfusion_operator.scaling.bounds import bounds_at
from disagfusion_operator.scaling.first import first_replicas
from disagfusion_operator.scaling.profiles import bounded, read_profile

from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import WeightedShape

EXAMPLES = Path(__file__).parents[4] / "examples"
MANIFESTS = sorted(EXAMPLES.glob("*.yaml"))
PICTURE = WeightedShape(height=1024, width=1024, num_inference_steps=28, sequence_length=256)
NOON, MIDNIGHT = 1_767_265_200.0, 1_767_222_000.0
"""Of the first of January 2026, in Berlin."""


def _read(path: Path) -> Spec:
    manifest: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    metadata, spec = read_pipeline(manifest)
    assert metadata.name
    return spec


def _profile(spec: Spec) -> Profile | None:
    source = spec.scaling.profile
    if source is None:
        return None
    if source.inline is not None:
        return read_profile(source.inline)
    # What its first lines say to make the ConfigMap of.
    return read_profile((EXAMPLES / "profiles" / "three-pools.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_it_is_read_and_has_a_ratio(path: Path) -> None:
    spec = _read(path)
    if (profile := _profile(spec)) is None:
        return
    whole = bounded(spec, profile, bounds_at(spec, NOON))
    replicas = first_replicas(whole, (PICTURE,), 12, dict.fromkeys(spec.pools, 12))
    assert replicas is not None
    assert {place.stage for place in replicas} == {"encoder", "dit", "decoder"}
    for place in replicas:
        assert place.pool in spec.pools_of(place.stage)


def test_at_night_there_is_less_of_it() -> None:
    spec = _read(EXAMPLES / "wan-three-pools.yaml")
    assert bounds_at(spec, NOON).budget is None
    assert bounds_at(spec, MIDNIGHT).budget == 6


def test_all_that_the_docs_list_are_there() -> None:
    text = (EXAMPLES.parent / "docs" / "kubernetes" / "first-pipeline.md").read_text()
    for path in MANIFESTS:
        assert f"(../../examples/{path.name})" in text
