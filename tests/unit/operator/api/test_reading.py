"""Errors of pipelines name the field as people write it."""

from __future__ import annotations

from typing import Any

import pytest
from disagfusion_operator.api.reading import read_metadata, read_pipeline

from disagfusion.errors import InvalidArgumentError

SPEC: dict[str, Any] = {"model": {"builtin": "digits"}, "pools": {"cpu": {}}}


def manifest(**spec: object) -> dict[str, Any]:
    metadata = {
        "namespace": "team",
        "name": "digits",
        "uid": "u-1",
        "generation": 4,
        "finalizers": ["disagfusion.dev/drain"],
    }
    return {
        "apiVersion": "disagfusion.dev/v1alpha1",
        "kind": "DiffusionPipeline",
        "metadata": metadata,
        "spec": SPEC | spec,
    }


def test_a_pipeline_is_read_with_its_defaults() -> None:
    metadata, spec = read_pipeline(manifest())
    assert (metadata.namespace, metadata.name, metadata.generation) == ("team", "digits", 4)
    assert metadata.finalizers == ("disagfusion.dev/drain",)
    assert spec.places() == (("encoder", "cpu"), ("dit", "cpu"), ("decoder", "cpu"))
    assert spec.gateway.store.sqlite is not None


def test_metadata_of_a_new_object_is_empty() -> None:
    assert read_metadata({}).name == ""
    assert read_metadata({"metadata": {"name": "x"}}).deletion_timestamp == ""


@pytest.mark.parametrize(
    ("spec", "field", "words"),
    [
        ({"modle": {}}, "team/digits: spec.modle", "imagePullSecrets"),
        ({"pools": {"GPU": {}}}, "team/digits: spec.pools.GPU", "lower-case"),
        (
            {"pools": {"a": {"nodeSelektor": {}}}},
            "team/digits: spec.pools.a.nodeSelektor",
            "nodeSel",
        ),
        ({"stages": {"dit": {"minReplicas": -1}}}, "team/digits: spec.stages.dit.minReplicas", "0"),
        (
            {"stages": {"dit": {"sharedMemory": "1 GB"}}},
            "team/digits: spec.stages.dit.sharedMemory",
            "16Gi",
        ),
        ({"imagePullSecrets": ["a", "a"]}, "team/digits: spec.imagePullSecrets", "twice"),
        ({"model": None}, "team/digits: spec.model", "valid"),
    ],
    ids=["unknown", "key", "nested", "bound", "quantity", "twice", "missing"],
)
def test_errors_name_the_field(spec: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        read_pipeline(manifest(**spec))
    assert refused.value.field.startswith(field)
    assert words in str(refused.value)


def test_another_kind_is_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="DiffusionPipeline"):
        read_pipeline(manifest() | {"kind": "Deployment"})
