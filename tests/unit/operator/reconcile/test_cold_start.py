"""How long the last pod to become ready took, and for what."""

from __future__ import annotations

from typing import Any

from disagfusion_operator.api.status import ColdStart
from disagfusion_operator.k8s.port import Object
from disagfusion_operator.k8s.states import seconds_of, text_of
from disagfusion_operator.reconcile.observe import cold_start

BEGIN = seconds_of("2027-01-15T08:00:00Z")


def at(seconds: float) -> str:
    return text_of(BEGIN + seconds)


def pod(
    *,
    scheduled: float = 2,
    fetched: tuple[float, float] | None = (10, 70),
    started: float = 75,
    ready: float = 100,
    stage: str = "dit",
    made: float = 0,
    restarts: int = 0,
    **metadata: Any,
) -> Object:
    """Return a stage's pod; all times in seconds after `made`, which is after the beginning."""
    init: list[Object] = []
    if fetched:
        ends = {"startedAt": at(made + fetched[0]), "finishedAt": at(made + fetched[1])}
        init.append({"name": "weights", "state": {"terminated": {"exitCode": 0, **ends}}})
    running = {"running": {"startedAt": at(made + started)}}
    return {
        "metadata": {
            "name": f"{stage}-1",
            "creationTimestamp": at(made),
            "labels": {
                "app.kubernetes.io/component": stage,
                "disagfusion.dev/stage": stage,
                "disagfusion.dev/pool": "a10",
            },
            **metadata,
        },
        "status": {
            "phase": "Running",
            "conditions": [
                {
                    "type": "PodScheduled",
                    "status": "True",
                    "lastTransitionTime": at(made + scheduled),
                },
                {"type": "Ready", "status": "True", "lastTransitionTime": at(made + ready)},
            ],
            "initContainerStatuses": init,
            "containerStatuses": [{"name": stage, "restartCount": restarts, "state": running}],
        },
    }


def test_it_comes_apart_into_scheduled_pulled_loaded_and_ready() -> None:
    assert cold_start([pod()]) == ColdStart(
        stage="dit", pool="a10", scheduled=2, pulled=10, loaded=70, ready=100
    )


def test_without_a_fetch_nothing_is_said_of_weights() -> None:
    found = cold_start([pod(fetched=None, started=12)])
    assert found is not None
    assert (found.pulled, found.loaded, found.ready) == (12, None, 100)
    assert "loaded" not in found.model_dump(by_alias=True, exclude_none=True)


def test_of_several_it_is_the_one_that_became_ready_last() -> None:
    quick = pod(stage="decoder", made=90, fetched=None, started=3, ready=20)
    slow = pod()
    for pods in ([quick, slow], [slow, quick]):
        found = cold_start(pods)
        assert found is not None
        assert (found.stage, found.ready) == ("decoder", 20)


def test_pods_that_were_no_cold_start_are_left_out() -> None:
    started = pod()
    later: dict[str, Any] = {"stage": "encoder", "made": 500}
    others = [
        pod(restarts=1, **later),
        pod(annotations={"disagfusion.dev/stage-changed-at": "1"}, **later),
        pod(deletionTimestamp=at(700), **later),
    ]
    waiting = pod(**later)
    waiting["status"]["conditions"][1]["status"] = "False"
    unscheduled = pod(**later)
    del unscheduled["status"]["conditions"][0]
    found = cold_start([*others, waiting, unscheduled, started])
    assert found is not None
    assert found.stage == "dit"
    assert cold_start([*others, waiting, unscheduled]) is None
    assert cold_start([]) is None


def test_clocks_that_differ_give_nothing_below_zero() -> None:
    """The API server's clock is not the node's."""
    found = cold_start([pod(fetched=(-1, -1), started=-1)])
    assert found is not None
    assert (found.pulled, found.loaded) == (0, 0)


def test_a_pod_that_is_ready_once_more_did_not_start_again() -> None:
    first = cold_start([pod()])
    assert first is not None
    assert cold_start([pod(ready=7_000)], first) == first


def test_an_older_pod_that_is_ready_once_more_is_not_the_newest() -> None:
    newer = pod(stage="decoder", made=90, fetched=None, started=3, ready=20)
    found = cold_start([pod(ready=7_000), newer])
    assert found is not None
    assert (found.stage, found.ready) == ("decoder", 20)


def test_the_last_one_stays_when_its_pod_has_gone() -> None:
    first = cold_start([pod()])
    assert cold_start([], first) == first


def test_an_image_is_pulled_once_although_the_fetch_is_tried_again() -> None:
    again = pod(fetched=(40, 70))
    failed = {"terminated": {"exitCode": 1, "startedAt": at(10), "finishedAt": at(12)}}
    again["status"]["initContainerStatuses"][0] |= {"restartCount": 1, "lastState": failed}
    found = cold_start([again])
    assert found is not None
    assert (found.pulled, found.loaded) == (10, 70)
