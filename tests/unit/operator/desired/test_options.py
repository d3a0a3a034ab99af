"""What people say of the model and of images reaches the pods, and has room there."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from bench import RELEASE
from disagfusion_operator.api.base import number
from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.desired import gateway, stages
from disagfusion_operator.desired.crews import crews
from disagfusion_operator.desired.inputs import Inputs

from disagfusion.stage.settings import StageSettings

HUB = {"hub": {"repository": "a/b", "revision": "0" * 40}}


def inputs(**spec: Any) -> Inputs:
    given = {"model": {"builtin": "digits"}, "pools": {"a10": {}}, **spec}
    return Inputs("demo", "p", "uid", Spec.model_validate(given), RELEASE)


def pod(found: Inputs, component: str = "dit") -> Any:
    (crew,) = (one for one in crews(found) if one.component == component)
    return stages.deployment(found, crew)["spec"]["template"]["spec"]


def settings(found: Inputs, monkeypatch: pytest.MonkeyPatch) -> StageSettings:
    (container,) = pod(found)["containers"]
    for one in container["env"]:
        monkeypatch.setenv(one["name"], one.get("value", "10.0.0.1"))
    return StageSettings()


def volume(found: Inputs, name: str) -> Any:
    (one,) = (one for one in pod(found)["volumes"] if one["name"] == name)
    return one


@pytest.mark.parametrize(
    ("given", "name", "expected"),
    [
        (
            {"compile": {"scope": "model", "mode": "max-autotune"}},
            "compile",
            {"scope": "model", "mode": "max-autotune", "fullgraph": False},
        ),
        (
            {"quantization": {"backend": "bitsandbytes_4bit", "components": ["transformer"]}},
            "quantization",
            {"backend": "bitsandbytes_4bit", "kwargs": {}, "components": ("transformer",)},
        ),
        (
            {"cache": {"kind": "first_block_cache", "kwargs": {"threshold": 0.1}}},
            "cache",
            {"kind": "first_block_cache", "kwargs": {"threshold": 0.1}},
        ),
        ({"attentionBackend": "flash"}, "attention_backend", "flash"),
        ({"vaeSlicing": True}, "vae_slicing", True),
        ({"vaeTiling": True}, "vae_tiling", True),
        ({"variant": "fp16"}, "variant", "fp16"),
        ({"workflows": ["text2image"]}, "workflows", ("text2image",)),
    ],
)  # fmt: skip
def test_a_stage_loads_as_the_options_say(
    given: Any, name: str, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = settings(inputs(), monkeypatch).load_options()
    found = settings(inputs(options=given), monkeypatch).load_options()
    value = getattr(found, name)
    told = value.model_dump(exclude_none=True) if hasattr(value, "model_dump") else value
    assert told == expected
    assert plain.model_copy(update={name: value}) == found
    assert plain != found


def test_secrets_of_the_images_registry_are_the_pipelines_and_the_releases() -> None:
    release = dataclasses.replace(RELEASE, pull_secrets=("theirs", "both"))
    found = dataclasses.replace(inputs(imagePullSecrets=["both", "mine"]), release=release)
    expected = [{"name": name} for name in ("both", "mine", "theirs")]
    door = gateway.deployment(found)["spec"]["template"]["spec"]
    for spec in (pod(found), door):
        assert spec["imagePullSecrets"] == expected
    assert "imagePullSecrets" not in pod(inputs())


def test_what_torch_compiles_has_room() -> None:
    assert volume(inputs(), "tmp")["emptyDir"] == {"sizeLimit": "64Mi"}
    compiled = volume(inputs(options={"compile": {}}), "tmp")["emptyDir"]["sizeLimit"]
    assert float(number(compiled)) >= 2 * 2**30


def test_what_a_pod_fetches_stays_below_the_limit_of_its_volume() -> None:
    # Beyond it the kubelet ends the pod, which would begin anew, again and again.
    found = inputs(model={**HUB, "cache": {"sizeLimit": "10Gi"}})
    assert volume(found, "weights")["emptyDir"] == {"sizeLimit": "10Gi"}
    (init,) = pod(found)["initContainers"]
    limit = int(init["command"][init["command"].index("--max-bytes") + 1])
    assert 9.5 * 2**30 < limit < 10 * 2**30


@pytest.mark.parametrize(
    "model",
    [
        {**HUB, "cache": {"hostPath": "/var/models", "sizeLimit": "10Gi"}},
        HUB,
        {"builtin": "digits", "cache": {"sizeLimit": "10Gi"}},
    ],
)
def test_what_others_share_has_no_limit_of_one_pod(model: Any) -> None:
    (init,) = pod(inputs(model=model))["initContainers"]
    assert "--max-bytes" not in init["command"]


@pytest.mark.parametrize("cache", [{}, {"hostPath": "/var/models"}])
def test_only_what_fetches_weights_may_write_them(cache: Any) -> None:
    spec = pod(inputs(model={**HUB, "cache": cache}))
    (init,), (container,) = spec["initContainers"], spec["containers"]
    access = [
        one.get("readOnly", False)
        for found in (init, container)
        for one in found["volumeMounts"]
        if one["name"] == "weights"
    ]
    assert access == [False, True]
