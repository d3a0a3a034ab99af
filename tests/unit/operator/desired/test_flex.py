"""What pods that change their stage are made of, and what stands around them."""

from __future__ import annotations

from typing import Any

from bench import RELEASE
from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.desired import names, pipeline, stages
from disagfusion_operator.desired.crews import crews, first_stage
from disagfusion_operator.desired.inputs import Inputs

from disagfusion.scheduling.profile import Profile

PROFILE = Profile.model_validate(
    {
        "pools": {"a": {"accelerators": 8, "start_seconds": 20.0}},
        "stages": {
            "encoder": {"pools": {"a": {"seconds": 1.0}}},
            "dit": {"pools": {"a": {"seconds": 30.0}}},
            "decoder": {"pools": {"a": {"seconds": 4.0}}},
        },
    }
)


def inputs(profile: Profile | None = None, **spec: Any) -> Inputs:
    given = {"model": {"builtin": "digits"}, "pools": {"a": {"flex": {}}}, **spec}
    text = profile.model_dump_json() if profile else ""
    return Inputs("demo", "p", "uid", Spec.model_validate(given), RELEASE, profile, text)


def deployments(found: Inputs) -> dict[str, Any]:
    made = (one for _, one in pipeline.stage_deployments(found))
    return {one["metadata"]["name"]: one for one in made}


def pod(found: Inputs) -> Any:
    return deployments(found)["p-flex-a"]["spec"]["template"]["spec"]


def environment(found: Inputs) -> dict[str, Any]:
    (container,) = pod(found)["containers"]
    return {one["name"]: one.get("value", one.get("valueFrom")) for one in container["env"]}


def supports(found: Inputs, kind: str) -> dict[str, Any]:
    return {one["metadata"]["name"]: one for one in pipeline.supports(found) if one["kind"] == kind}


def test_a_pool_has_one_deployment_for_all_stages() -> None:
    assert list(deployments(inputs())) == ["p-flex-a"]
    found = deployments(
        inputs(pools={"a": {"flex": {}}, "b": {}}, stages={"encoder": {"pools": ["b"]}})
    )
    assert sorted(found) == ["p-decoder-b", "p-dit-b", "p-encoder-b", "p-flex-a"]


def test_the_stage_is_a_label_outside_of_the_selector() -> None:
    found = deployments(inputs())["p-flex-a"]
    selector = found["spec"]["selector"]["matchLabels"]
    labels = found["spec"]["template"]["metadata"]["labels"]
    assert selector.items() <= labels.items()
    assert names.STAGE_LABEL not in selector
    assert labels[names.STAGE_LABEL] == "dit"
    assert names.STAGE_LABEL not in found["metadata"]["labels"]
    assert found["spec"]["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": "25%"}


def test_a_container_begins_with_the_stage_that_the_label_says_then() -> None:
    (container,) = pod(inputs())["containers"]
    assert container["command"] == ["python", "-m", "disagfusion_$(DISAGFUSION_STAGE)"]
    source = environment(inputs())["DISAGFUSION_STAGE"]
    assert source["fieldRef"]["fieldPath"] == "metadata.labels['disagfusion.dev/stage']"
    template = {"spec": {"containers": [{"name": "flex", "env": [
        {"name": "DISAGFUSION_STAGE", "value": "dit"}, {"name": "MINE", "value": "1"},
    ]}]}}  # fmt: skip
    found = environment(inputs(pools={"a": {"flex": {"podTemplate": template}}}))
    assert found["DISAGFUSION_STAGE"] == source
    assert found["MINE"] == "1"


def test_pods_begin_as_what_most_of_them_are() -> None:
    assert first_stage(("encoder", "dit", "decoder")) == "dit"
    assert first_stage(("encoder", "decoder")) == "encoder"


def test_they_have_one_image_and_the_weights_of_all_stages() -> None:
    found = inputs()
    assert pod(found)["containers"][0]["image"] == "registry/flex:1"
    (fetches,) = pod(found)["initContainers"]
    assert fetches["image"] == "registry/flex:1"
    assert "--stage" not in fetches["command"]
    other = inputs(pools={"a": {"flex": {"image": "mine"}}})
    assert pod(other)["containers"][0]["image"] == "mine"
    assert other.version != found.version
    # Nobody runs it.
    assert inputs(stages={"dit": {"image": "other"}}).version == found.version
    emulated = inputs(PROFILE, model={"emulated": {}}, scaling={"profile": {"inline": {}}})
    assert pod(emulated)["containers"][0]["image"] == "registry/emulated:1"


def test_what_is_said_of_them_holds_and_not_what_is_said_of_stages() -> None:
    flex = {"threads": 3, "slots": 4, "sendSlots": 5, "sharedMemory": "4Gi",
            "resources": {"limits": {"memory": "9Gi"}}}  # fmt: skip
    found = inputs(pools={"a": {"flex": flex}}, stages={"dit": {"threads": 7, "slots": 7}})
    given = environment(found)
    assert given["DISAGFUSION_THREADS"] == "3"
    assert given["DISAGFUSION_SLOTS"] == "4"
    assert given["DISAGFUSION_SEND_SLOTS"] == "5"
    assert pod(found)["containers"][0]["resources"]["limits"] == {"memory": "9Gi"}
    (shared,) = (one for one in pod(found)["volumes"] if one["name"] == "shm")
    assert shared["emptyDir"]["sizeLimit"] == "4Gi"


def test_the_grace_period_is_that_of_the_longest_job_of_any_stage() -> None:
    spec = Spec.model_validate({"model": {"builtin": "digits"}, "pools": {"a": {}}})
    plain = Inputs("demo", "p", "uid", spec, RELEASE, PROFILE)
    alone = {one.component: one.grace_seconds for one in crews(plain)}
    (together,) = crews(inputs(PROFILE))
    assert together.grace_seconds >= max(alone.values()) > min(alone.values())


def test_services_follow_the_label() -> None:
    for stage, service in (
        (stage, stages.service(inputs(), stage)) for stage in ("dit", "encoder")
    ):
        assert service["spec"]["selector"] == {
            names.PIPELINE_LABEL: "p", names.STAGE_LABEL: stage,
        }  # fmt: skip


def test_one_disruption_budget_is_for_all_that_change() -> None:
    found = supports(inputs(), "PodDisruptionBudget")
    chosen = found["p-flex"]["spec"]["selector"]["matchLabels"]
    labels = deployments(inputs())["p-flex-a"]["spec"]["template"]["metadata"]["labels"]
    assert chosen.items() <= labels.items()
    # The API server refuses to evict a pod that two of them are for.
    for stage in ("encoder", "dit", "decoder"):
        assert not found[f"p-{stage}"]["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert "p-flex" not in supports(inputs(pools={"a": {}}), "PodDisruptionBudget")


def test_the_operator_reaches_pods_that_it_tells_to_change_and_no_others() -> None:
    def callers(found: Inputs) -> list[Any]:
        rules = supports(found, "NetworkPolicy")["p-stages"]["spec"]["ingress"]
        (rule,) = (one for one in rules if one["ports"][0]["port"] == names.STAGE_PORT)
        return [one["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
                for one in rule["from"]]  # fmt: skip

    assert callers(inputs()) == ["gateway", "operator"]
    assert callers(inputs(pools={"a": {}})) == ["gateway"]
