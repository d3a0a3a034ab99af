"""What stage pods are made of."""

from __future__ import annotations

from typing import Any

import pytest
from bench import RELEASE
from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.desired import names, stages
from disagfusion_operator.desired.crews import crews
from disagfusion_operator.desired.inputs import Inputs, rounded
from hypothesis import given
from hypothesis import strategies as st

from disagfusion.rpc import server
from disagfusion.scheduling.profile import Profile
from disagfusion.stage.settings import StageSettings

PROFILE = Profile.model_validate(
    {
        "pools": {
            "a10": {"accelerators": 4, "start_seconds": 20.0},
            "slow": {"accelerators": 4, "start_seconds": 300.0},
        },
        "stages": {
            "encoder": {"pools": {"a10": {"seconds": 1.0}}},
            "dit": {"pools": {"a10": {"seconds": 30.0}, "slow": {"seconds": 100.0}}},
            "decoder": {"pools": {"a10": {"seconds": 4.0}}},
        },
    }
)

TOKEN = {"name": "t", "key": "k"}


def inputs(profile: Profile | None = None, **spec: Any) -> Inputs:
    given = {"model": {"builtin": "digits"}, "pools": {"a10": {}}, **spec}
    text = profile.model_dump_json() if profile else ""
    return Inputs("demo", "p", "uid", Spec.model_validate(given), RELEASE, profile, text)


def deployment(found: Inputs, component: str, pool: str) -> Any:
    (crew,) = (one for one in crews(found) if (one.component, one.pool) == (component, pool))
    return stages.deployment(found, crew)


def pod(found: Inputs, stage: str = "dit", pool: str = "a10") -> Any:
    return deployment(found, stage, pool)["spec"]["template"]["spec"]


def environment(found: Inputs, stage: str = "dit", pool: str = "a10") -> dict[str, Any]:
    (container,) = pod(found, stage, pool)["containers"]
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


def test_replicas_are_nobodys_here_and_none_is_added_in_a_rollout() -> None:
    found = deployment(inputs(), "dit", "a10")
    assert found["metadata"]["name"] == "p-dit-a10"
    assert "replicas" not in found["spec"]
    assert found["spec"]["strategy"]["rollingUpdate"]["maxSurge"] == 0
    selector = found["spec"]["selector"]["matchLabels"]
    labels = found["spec"]["template"]["metadata"]["labels"]
    assert selector.items() <= labels.items()
    assert labels["disagfusion.dev/stage"] == "dit"
    assert labels["disagfusion.dev/pool"] == "a10"


@pytest.mark.parametrize("model", [{"builtin": "digits"}, {"emulated": {}}])
def test_a_stage_understands_its_environment(
    model: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    scaling = {"profile": {"inline": PROFILE.model_dump(exclude_none=True)}}
    found = inputs(
        PROFILE,
        model=model,
        scaling=scaling,
        stages={"dit": {"threads": 3, "slots": 4, "sendSlots": 5, "sharedMemory": "2Gi"}},
        options={"vaeTiling": True, "variant": "fp16", "workflows": ["text2image"]},
        dtype="bfloat16",
    )
    for name, value in environment(found).items():
        text = value if isinstance(value, str) else "10.0.0.1"
        monkeypatch.setenv(name, text)
    settings = StageSettings()
    assert (settings.listen, settings.transport_host) == ("0.0.0.0:7430", "0.0.0.0")
    assert (settings.transport_port, settings.ucx_ports) == (7431, "7440-7499")
    assert settings.transport_advertise == "10.0.0.1"
    assert (settings.threads, settings.slots, settings.send_slots) == (3, 4, 5)
    assert settings.dtype == "bfloat16"
    assert settings.version_tag == found.version
    assert 1.7 * 2**30 < settings.arena_bytes < 2 * 2**30
    assert settings.pool == "a10"
    if "emulated" in model:
        assert settings.device == "emulated:a10"
        assert settings.pipeline == "emulated-p"
    else:
        assert settings.device == "cpu"
        assert settings.model == "/var/run/disagfusion/model"
        assert settings.vae_tiling
        assert settings.variant == "fp16"
        assert settings.workflows == ("text2image",)


def test_a_pod_has_as_few_rights_as_can_be() -> None:
    found = pod(inputs())
    assert found["automountServiceAccountToken"] is False
    assert found["securityContext"]["runAsNonRoot"] is True
    assert found["securityContext"]["runAsUser"] == 65532
    assert found["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in (*found["containers"], *found["initContainers"]):
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & found.keys()


def test_rdma_is_asked_for_and_may_lock_memory() -> None:
    found = pod(inputs(transport={"rdma": {"resource": "rdma/hca", "count": 2}}))
    (container,) = found["containers"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["IPC_LOCK"]}
    assert container["resources"]["limits"]["rdma/hca"] == "2"
    assert container["resources"]["requests"]["rdma/hca"] == "2"


def test_accelerators_and_nodes_are_the_pools() -> None:
    pool = {
        "nodeSelector": {"gpu": "h100"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "runtimeClassName": "nvidia",
        "accelerator": {"count": 2},
    }
    found = inputs(pools={"h100": pool})
    spec = pod(found, "dit", "h100")
    assert spec["nodeSelector"] == {"gpu": "h100"}
    assert spec["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert spec["runtimeClassName"] == "nvidia"
    (container,) = spec["containers"]
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    assert environment(found, "dit", "h100")["DISAGFUSION_DEVICE"] == "cuda"


def test_shared_memory_has_a_size_that_inputs_and_outputs_fit() -> None:
    found = inputs(stages={"dit": {"sharedMemory": "512Mi"}})
    (shared,) = [one for one in pod(found)["volumes"] if one["name"] == "shm"]
    assert shared["emptyDir"] == {"medium": "Memory", "sizeLimit": "512Mi"}
    arena = int(environment(found)["DISAGFUSION_ARENA_BYTES"])
    assert arena < 512 * 2**20
    assert arena % 2**20 == 0


def test_probes_ask_about_life_and_readiness_by_different_names() -> None:
    (container,) = pod(inputs())["containers"]
    assert container["livenessProbe"]["grpc"] == {"port": 7430, "service": server.LIVENESS}
    assert container["readinessProbe"]["grpc"] == {"port": 7430, "service": server.READINESS}
    assert container["startupProbe"]["grpc"]["service"] == server.LIVENESS
    assert names.LIVENESS != names.READINESS


def test_with_certificates_probes_have_a_port_of_their_own() -> None:
    tls = {"secretName": "certificates", "serverName": "stage"}
    found = inputs(transport={"backend": "TCP", "tls": tls})
    (container,) = pod(found)["containers"]
    assert container["livenessProbe"]["grpc"]["port"] == 7432
    settings = environment(found)
    assert settings["DISAGFUSION_PROBE_LISTEN"] == "0.0.0.0:7432"
    assert settings["DISAGFUSION_TLS_SERVER_NAME"] == "stage"
    assert settings["DISAGFUSION_TRANSPORT"] == "tcp"
    assert "DISAGFUSION_UCX_PORTS" not in settings
    assert {"name": "tls", "mountPath": "/etc/disagfusion/tls", "readOnly": True} in container[
        "volumeMounts"
    ]


def test_the_grace_period_follows_from_the_longest_job() -> None:
    pools: dict[str, Any] = {"a10": {}, "slow": {}}
    known = inputs(PROFILE, pools=pools, scaling={"profile": {"inline": {}}})
    # Two jobs of thirty seconds, twice as long for larger ones; then outputs are fetched.
    assert pod(known)["terminationGracePeriodSeconds"] == 240
    assert pod(known, "dit", "slow")["terminationGracePeriodSeconds"] == 960
    assert pod(known, "encoder")["terminationGracePeriodSeconds"] >= 60
    assert pod(inputs())["terminationGracePeriodSeconds"] > 600
    drain = int(environment(known)["DISAGFUSION_DRAIN_SECONDS"])
    assert drain < pod(known)["terminationGracePeriodSeconds"]


def test_a_start_may_take_as_long_as_loading_does() -> None:
    pools: dict[str, Any] = {"a10": {}, "slow": {}}
    known = inputs(PROFILE, pools=pools, scaling={"profile": {"inline": {}}})

    def allowed(pool: str) -> int:
        probe = pod(known, "dit", pool)["containers"][0]["startupProbe"]
        return int(probe["periodSeconds"] * probe["failureThreshold"])

    assert allowed("a10") == 600
    assert allowed("slow") == 960


def test_a_profile_that_was_measured_anew_replaces_no_pods() -> None:
    def made(seconds: float) -> Any:
        dit = {"pools": {"a10": {"seconds": seconds}}}
        content = {**PROFILE.model_dump(exclude_none=True)}
        content["stages"] = {**content["stages"], "dit": dit}
        profile = Profile.model_validate(content)
        return pod(inputs(profile, scaling={"profile": {"inline": {}}}))

    assert made(30.0) == made(31.5)
    assert made(30.0) != made(300.0)


@given(st.floats(0.0, 1e5))
def test_seconds_are_rounded_up_in_large_steps(seconds: float) -> None:
    found = rounded(seconds)
    assert found >= seconds
    assert found in [30 * 2**n for n in range(20)]
    assert found == 30 or found < 2 * seconds


@pytest.mark.parametrize(
    ("model", "source", "volume"),
    [
        ({"builtin": "digits"}, ["builtin:digits"], None),
        (
            {"hub": {"repository": "a/b", "revision": "0" * 40, "tokenSecret": TOKEN}},
            ["hub:a/b", "--revision", "0" * 40, "--token-file", "/etc/disagfusion/hub/token"],
            {"name": "weights", "emptyDir": {}},
        ),
        (
            {"store": {"url": "https://s/index.json"}, "cache": {"hostPath": "/var/models"}},
            ["https://s/index.json"],
            {"name": "weights", "hostPath": {"path": "/var/models", "type": "Directory"}},
        ),
        (
            {"volume": {"claimName": "models", "path": "flux"}},
            ["dir:/mnt/model/flux"],
            {"name": "source", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}},
        ),
    ],
)  # fmt: skip
def test_weights_are_fetched_before_the_stage_begins(
    model: dict[str, Any], source: list[str], volume: Any
) -> None:
    found = inputs(model=model)
    spec = pod(found)
    (init,) = spec["initContainers"]
    assert init["command"][:4] == ["python", "-m", "disagfusion.weights", "fetch"]
    assert set(source) <= set(init["command"])
    assert init["command"][4] == source[0]
    assert ["--stage", "dit"] == init["command"][5:7]
    if volume is not None:
        assert volume in spec["volumes"]
    (container,) = spec["containers"]
    mounts = {one["name"]: one for one in container["volumeMounts"]}
    assert mounts["model"]["readOnly"] is True
    assert "hub-token" not in mounts
    assert environment(found)["DISAGFUSION_LOCAL_FILES_ONLY"] == "true"


def test_an_emulated_stage_has_no_model_and_one_image() -> None:
    scaling = {"profile": {"inline": {}}}
    found = inputs(PROFILE, model={"emulated": {"timeScale": 0.5}}, scaling=scaling)
    spec = pod(found)
    assert "initContainers" not in spec
    (container,) = spec["containers"]
    assert container["image"] == "registry/emulated:1"
    assert container["command"] == ["python", "-m", "disagfusion_dit"]
    assert environment(found)["DISAGFUSION_TIME_SCALE"] == "0.5"


def test_a_version_is_of_model_and_images_and_nothing_else() -> None:
    before = inputs()
    same: list[dict[str, Any]] = [
        {"stages": {"dit": {"threads": 9, "minReplicas": 3}}},
        {"gateway": {"image": "other"}},
        {"scaling": {"budget": 3}},
        {"model": {"builtin": "digits", "cache": {"sizeLimit": "1Gi"}}},
    ]
    for change in same:
        assert inputs(**change).version == before.version, change
    other: list[dict[str, Any]] = [
        {"stages": {"dit": {"image": "other"}}},
        {"dtype": "float16"},
        {"options": {"vaeTiling": True}},
        {"model": {"volume": {"claimName": "m"}}},
    ]
    versions = {inputs(**change).version for change in other}
    assert len(versions | {before.version}) == 1 + len(other)
