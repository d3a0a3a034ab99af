"""What people lay over pods is merged as Kubernetes merges; what must stay, stays."""

from __future__ import annotations

from typing import Any

import pytest
from bench import RELEASE
from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.desired import gateway, stages
from disagfusion_operator.desired.crews import crews
from disagfusion_operator.desired.inputs import Inputs
from disagfusion_operator.desired.overrides import merge
from hypothesis import given
from hypothesis import strategies as st

from disagfusion.stage.settings import StageSettings


def template(model: Any = None, **override: Any) -> Any:
    spec = {
        "model": model or {"builtin": "digits"},
        "pools": {"cpu": {"tolerations": [{"key": "a", "operator": "Exists"}]}},
        "stages": {"dit": {"podTemplate": override}},
        "gateway": {"podTemplate": override},
    }
    inputs = Inputs("demo", "p", "uid", Spec.model_validate(spec), RELEASE)
    crew = next(one for one in crews(inputs) if one.component == "dit")
    return stages.deployment(inputs, crew)["spec"]["template"]


def test_fields_are_added_and_containers_are_known_by_name() -> None:
    found = template(
        labels={"team": "x", "disagfusion.dev/pool": "forged"},
        annotations={"note": "y", "disagfusion.dev/version": "forged"},
        spec={
            "priorityClassName": "high",
            "tolerations": [{"key": "b", "operator": "Exists"}],
            "containers": [
                {"name": "dit", "env": [{"name": "HF_ENDPOINT", "value": "http://mirror"}]},
                {"name": "sidecar", "image": "s"},
            ],
            "volumes": [{"name": "more", "emptyDir": {}}],
        },
    )
    assert found["metadata"]["labels"]["team"] == "x"
    assert found["metadata"]["labels"]["disagfusion.dev/pool"] == "cpu"
    assert found["metadata"]["annotations"]["note"] == "y"
    assert found["metadata"]["annotations"]["disagfusion.dev/version"] != "forged"
    spec = found["spec"]
    assert spec["priorityClassName"] == "high"
    assert [one["key"] for one in spec["tolerations"]] == ["a", "b"]
    assert [one["name"] for one in spec["containers"]] == ["dit", "sidecar"]
    assert {"name": "HF_ENDPOINT", "value": "http://mirror"} in spec["containers"][0]["env"]
    assert [one["name"] for one in spec["volumes"]] == ["shm", "tmp", "model", "more"]
    # Beside ours, whose place nothing took.
    assert {"name": "DISAGFUSION_POOL", "value": "cpu"} in spec["containers"][0]["env"]


def test_what_the_operator_relies_on_stays() -> None:
    plain = template()["spec"]
    found = template(
        spec={
            "serviceAccountName": "mine",
            "automountServiceAccountToken": True,
            "terminationGracePeriodSeconds": 1,
            "hostNetwork": True,
            "hostIPC": True,
            "securityContext": {"runAsNonRoot": False, "runAsUser": 0, "supplementalGroups": [7]},
            "containers": [
                {
                    "name": "dit",
                    "command": ["sh"],
                    "args": ["-c", "true"],
                    "livenessProbe": {"exec": {"command": ["true"]}},
                    "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
                    "securityContext": {"privileged": True},
                    "env": [
                        {"name": "DISAGFUSION_NAME", "value": "another"},
                        {"name": "DISAGFUSION_LOG_FORMAT", "value": "console"},
                    ],
                    "volumeMounts": [{"name": "tmp", "mountPath": "/dev/shm"}],
                }
            ],
        }
    )["spec"]
    for field in ("serviceAccountName", "automountServiceAccountToken"):
        assert found[field] == plain[field]
    assert found["terminationGracePeriodSeconds"] == plain["terminationGracePeriodSeconds"]
    assert not {"hostNetwork", "hostIPC"} & found.keys()
    assert found["securityContext"] == {**plain["securityContext"], "supplementalGroups": [7]}
    (ours,), (container,) = plain["containers"], found["containers"]
    for field in ("command", "livenessProbe", "securityContext"):
        assert container[field] == ours[field]
    assert not {"args", "lifecycle"} & container.keys()
    env = {one["name"]: one for one in container["env"]}
    assert env["DISAGFUSION_NAME"]["valueFrom"]
    assert "value" not in env["DISAGFUSION_NAME"]
    assert env["DISAGFUSION_LOG_FORMAT"]["value"] == "console"
    mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
    assert mounts["/dev/shm"] == "shm"


def test_a_container_of_ours_cannot_be_taken_away() -> None:
    plain = template()
    assert template(spec={"containers": None, "initContainers": None}) == plain


def test_a_container_that_is_only_named_is_as_it_was() -> None:
    plain = template()
    assert template(spec={"containers": [{"name": "dit"}], "volumes": [{"name": "shm"}]}) == plain
    named = template(spec={"imagePullSecrets": [{"name": "mine"}]})["spec"]
    assert named["imagePullSecrets"] == [{"name": "mine"}]


COMPUTED = {
    "ATTENTION_BACKEND": "flash",
    "CACHE": '{"kind": "first-block"}',
    "COMPILE": "{}",
    "DEVICE": "cpu:1",
    "DTYPE": "float16",
    "LOCAL_FILES_ONLY": "false",
    "MODEL": "/mine",
    "MONOLITH": "resident",
    "PROFILE": "/mine.yaml",
    "QUANTIZATION": '{"backend": "mine"}',
    "REVISION": "main",
    "TIME_NOISE": "0.5",
    "TIME_SCALE": "9.0",
    "VAE_SLICING": "true",
    "VAE_TILING": "true",
    "VARIANT": "fp16",
    "WORKFLOWS": '["mine"]',
}
NO_MATTER = {"THREADS": "7", "HELD_SECONDS": "1.0", "LOG_LEVEL": "debug"}


def test_what_decides_what_is_computed_is_the_specifications_alone() -> None:
    # Another image or model under the same version would mix two of them in a job.
    plain = template()["spec"]
    own = COMPUTED | NO_MATTER
    env = [{"name": f"DISAGFUSION_{name}", "value": value} for name, value in own.items()]
    changed = {"image": "mine:latest", "env": env}
    found = template(
        spec={
            "containers": [{"name": "dit", **changed}],
            "initContainers": [{"name": "weights", "image": "mine:latest"}],
        }
    )["spec"]
    (ours,), (container,) = plain["containers"], found["containers"]
    assert container["image"] == ours["image"]
    assert found["initContainers"][0]["image"] == plain["initContainers"][0]["image"]
    there = {one["name"]: one.get("value") for one in container["env"]}
    expected = {one["name"]: one.get("value") for one in ours["env"]}
    assert there == expected | {f"DISAGFUSION_{name}": v for name, v in NO_MATTER.items()}


def test_no_setting_of_a_stage_is_forgotten() -> None:
    """Every one is protected, or known not to decide what is computed."""
    free = {
        *("threads", "stage_threads", "slots", "send_slots", "handover", "arena_bytes"),
        *("prompt_cache_bytes", "held_seconds", "input_seconds", "send_seconds"),
        *("engine_silence_seconds", "load_ahead", "drain_seconds", "fork_server"),
        *("tls_cert", "tls_key", "tls_ca", "tls_server_name"),
        *("weights_report", "termination_log", "ready_file", "log_format", "log_level"),
    }
    protected = {
        *map(str.lower, COMPUTED),
        *("listen", "name", "pipeline", "pool", "version_tag", "metrics_listen", "probe_listen"),
        *("transport", "transport_host", "transport_port", "transport_advertise", "ucx_ports"),
    }
    assert free | protected == set(StageSettings.model_fields)
    for name in protected:
        given = {"name": f"DISAGFUSION_{name.upper()}", "value": "mine"}
        spec = {"containers": [{"name": "dit", "env": [given]}]}
        assert template(spec=spec) == template(), name


def test_what_comes_from_elsewhere_goes_behind_it(monkeypatch: pytest.MonkeyPatch) -> None:
    source = [{"configMapRef": {"name": "mine"}}]
    found = template(spec={"containers": [{"name": "dit", "envFrom": source}]})["spec"]
    (container,) = found["containers"]
    assert container["envFrom"] == source
    for name, value in COMPUTED.items():
        monkeypatch.setenv(f"DISAGFUSION_{name}", value)
    for one in container["env"]:
        monkeypatch.setenv(one["name"], one.get("value", "10.0.0.1"))
    settings = StageSettings()
    monkeypatch.undo()
    for one in template()["spec"]["containers"][0]["env"]:
        monkeypatch.setenv(one["name"], one.get("value", "10.0.0.1"))
    assert settings == StageSettings()


def test_where_the_model_is_is_the_specifications_alone() -> None:
    other = {"name": "source", "persistentVolumeClaim": {"claimName": "other"}}
    mount = {"name": "source", "mountPath": "/mnt/model", "subPath": "other"}
    laid = {
        "volumes": [other, {"name": "tmp", "emptyDir": {"sizeLimit": "9Gi"}}],
        "initContainers": [{"name": "weights", "volumeMounts": [mount]}],
    }
    model = {"volume": {"claimName": "models"}}
    found, plain = template(model, spec=laid)["spec"], template(model)["spec"]
    claim = {"claimName": "models", "readOnly": True}
    assert {"name": "source", "persistentVolumeClaim": claim} in found["volumes"]
    assert {"name": "tmp", "emptyDir": {"sizeLimit": "9Gi"}} in found["volumes"]
    assert found["initContainers"] == plain["initContainers"]


def test_gateways_are_laid_over_too() -> None:
    spec = Spec.model_validate(
        {
            "model": {"builtin": "digits"},
            "pools": {"cpu": {}},
            "gateway": {"podTemplate": {"spec": {"nodeSelector": {"disk": "ssd"}}}},
        }
    )
    found = gateway.deployment(Inputs("demo", "p", "uid", spec, RELEASE))
    assert found["spec"]["template"]["spec"]["nodeSelector"] == {"disk": "ssd"}


LEAVES = st.integers(0, 3) | st.text("ab", max_size=2) | st.booleans()
TREES = st.recursive(
    LEAVES, lambda one: st.dictionaries(st.sampled_from("xyz"), one, max_size=3), max_leaves=8
)
OBJECTS = st.dictionaries(st.sampled_from("xyz"), TREES, max_size=3)


@given(OBJECTS, OBJECTS)
def test_merging_is_of_the_last_word(base: dict[str, Any], patch: dict[str, Any]) -> None:
    merged = merge(base, patch)
    assert merge(merged, patch) == merged
    assert merge(base, {}) == base

    def covered(there: Any, wanted: Any) -> bool:
        if isinstance(wanted, dict):
            return isinstance(there, dict) and all(
                covered(there.get(name), value) for name, value in wanted.items()
            )
        return bool(there == wanted)

    assert covered(merged, patch)
    assert set(merged) == set(base) | set(patch)


@given(OBJECTS)
def test_null_takes_away(base: dict[str, Any]) -> None:
    assert merge(base, dict.fromkeys(base)) == {}
