"""What benchmarks on Kubernetes count, and when they fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks.kubernetes_scale import ALONE, BALANCED, Outcome, quiet, settled
from benchmarks.kubernetes_shift import Outcome as Shift
from benchmarks.kuberneteskit import pods as watched
from benchmarks.kuberneteskit.operator import Rest
from benchmarks.kuberneteskit.playing import metrics
from benchmarks.kuberneteskit.pods import PodWatch

RESOURCE = "example.com/accelerator"


def pod(uid: str, stage: str = "dit", *, held: int = 1, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {"uid": uid, "labels": {"disagfusion.dev/stage": stage}},
        "spec": {"containers": [{"resources": {"limits": {RESOURCE: str(held)}}}]},
        "status": status,
    }


READY = {"conditions": [{"type": "Ready", "status": "True"}], "podIP": "10.0.0.1"}


class FakeApi:
    """Lists pods; what comes afterwards are the events of a fake watch."""

    def __init__(self, listed: list[dict[str, Any]]) -> None:
        self._body = {"metadata": {"resourceVersion": "1"}, "items": listed}

    def list_namespaced_pod(self, namespace: str, **_: Any) -> Any:
        return SimpleNamespace(data=json.dumps(self._body))


@pytest.fixture
def follow(monkeypatch: pytest.MonkeyPatch) -> Any:
    def begin(
        listed: list[dict[str, Any]],
        events: list[tuple[str, dict[str, Any]] | Exception],
        targets: Path,
    ) -> PodWatch:
        class FakeWatch:
            """One that ends with its last event."""

            def stream(self, *_: Any, **__: Any) -> Iterator[dict[str, Any]]:
                for event in events:
                    if isinstance(event, Exception):
                        raise event
                    yield {"type": event[0], "raw_object": event[1]}
                found._ended.set()

            def stop(self) -> None:
                pass

        monkeypatch.setattr(watched.config, "new_client_from_config", lambda path: None)
        monkeypatch.setattr(watched.client, "CoreV1Api", lambda access: FakeApi(listed))
        monkeypatch.setattr(watched.watch, "Watch", FakeWatch)
        found = PodWatch(targets, "here", RESOURCE, targets)
        return found

    return begin


def test_pods_that_end_hold_what_they_held_until_they_are_gone(follow: Any, tmp_path: Path) -> None:
    ending = pod("a", **READY)
    ending["metadata"]["deletionTimestamp"] = "now"
    events = [
        ("MODIFIED", ending),
        ("ADDED", pod("b", "encoder", held=2)),
        ("DELETED", ending),
        ("MODIFIED", pod("b", "encoder", held=2, **READY)),
        ("ADDED", pod("c", phase="Succeeded")),
    ]
    with follow([pod("a", **READY)], events, tmp_path / "targets.json") as found:
        found._thread.join(10)
    assert found.most_held == 3
    assert found.seen == 2
    assert found.most_ready == {"dit": 1, "encoder": 1}
    assert json.loads((tmp_path / "targets.json").read_text()) == [{"targets": ["10.0.0.1:9464"]}]


def test_a_watch_that_fell_silent_is_no_proof(follow: Any, tmp_path: Path) -> None:
    found = follow([pod("a")], [KeyError("what nobody thought of")], tmp_path / "targets.json")
    with pytest.raises(RuntimeError, match="pods were not followed to the end"), found:
        found._thread.join(10)


SHIFT = Shift(
    submitted=9, succeeded=9, last=1500.0, p50=1.0, p95=2.0, late=0.0, most_held=8, budget=8,
    pods=10, scrapes=100, scrapes_failed=10, grown={"dit": 0, "decoder": 1}, simulated_last=1400.0,
    simulated_p95=2.0, simulated_grown={"dit": 0, "decoder": 2}, static_last=1900.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"succeeded": 8}, "1 jobs were lost"),
        ({"most_held": 9}, "9 of 8 accelerators were held"),
        ({"grown": {"dit": 1, "decoder": 0}}, "decoder did not grow"),
        ({"last": 1900.0}, "the last job ended after 1900 s, with a ratio that stays"),
        ({"scrapes_failed": 0}, "no scrape failed"),
    ],
)
def test_a_shift_that_nobody_follows_fails(change: dict[str, Any], text: str) -> None:
    assert SHIFT.failures() == []
    (failure,) = replace(SHIFT, **change).failures()
    assert failure.startswith(text)


REST = Rest(calls_per_pipeline_minute=0.4, calls={}, resident_mib=150.0, peak_mib=190.0)
SCALE = Outcome(
    pipelines=100, accelerators=500, apply_seconds=5.0, settled=100, quiet=True,
    settled_seconds=50.0,
    waited_seconds=51.0, resident_mib=150.0, peak_mib=190.0,
    rest={ALONE: REST, BALANCED: replace(REST, balanced=100)},
)  # fmt: skip


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (
            {"settled": 99, "quiet": False, "settled_seconds": None, "rest": {}},
            "1 pipelines have not settled",
        ),
        (
            {"settled": 91, "settled_seconds": None},
            "9 pipelines have not settled, though they have all that they ask for",
        ),
        ({"settled_seconds": 60.1}, "60.1 s to settle, more than 60"),
        ({"peak_mib": 201.0}, "the operator had 201 MiB, more than 200"),
        (
            {"rest": {ALONE: REST, BALANCED: replace(REST, balanced=99)}},
            "only 99 pipelines were balanced from Prometheus",
        ),
        (
            {"rest": {ALONE: REST, BALANCED: replace(REST, balanced=100, peak_mib=300.0)}},
            "the operator had 300 MiB with Prometheus, more than 200",
        ),
        (
            {
                "rest": {
                    ALONE: replace(REST, calls_per_pipeline_minute=2.5),
                    BALANCED: replace(REST, balanced=100),
                }
            },
            "2.50 calls a minute for each pipeline without Prometheus, more than 2",
        ),
    ],
)
def test_many_pipelines_have_limits(change: dict[str, Any], text: str) -> None:
    assert SCALE.failures(60.0, 200.0, 2.0) == []
    assert replace(SCALE, **change).failures(60.0, 200.0, 2.0) == [text]


def test_settled_is_who_has_all_that_the_budget_allows() -> None:
    def item(*ready: int) -> dict[str, Any]:
        names = ("encoder", "dit", "decoder")
        stages = {
            name: {"desired": count, "ready": count}
            for name, count in zip(names, ready, strict=True)
        }
        return {
            "metadata": {"generation": 1},
            "status": {"observedGeneration": 1, "stages": stages},
        }

    assert settled(item(1, 3, 1))
    assert quiet(item(1, 1, 1))
    assert not settled(item(1, 1, 1))


def test_each_replica_has_series_of_its_own() -> None:
    text = metrics(["p"], {"encoder": 1, "dit": 3}, "large", {"encoder": 1.0, "dit": 3.0}, 100.0)
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines())
    of = 'pipeline="p",stage="dit",instance="p-dit-%d",state="busy"'
    busy = f"disagfusion_accelerator_seconds_total{{{of}}}"
    assert [float(lines[busy % number]) for number in range(3)] == [50.0, 50.0, 50.0]
    assert (
        lines[
            'disagfusion_workers{pipeline="p",instance="p",stage="dit",pool="large",state="ready"}'
        ]
        == "3"
    )
