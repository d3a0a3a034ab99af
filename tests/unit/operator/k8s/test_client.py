"""The adapter over HTTP: what it sends, and what it makes of answers."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from disagfusion_operator.k8s import client as module
from disagfusion_operator.k8s.client import KubernetesCluster
from disagfusion_operator.k8s.kinds import DEPLOYMENT, NODE, PIPELINE, POD, SERVICE
from kubernetes.aio import client as kubernetes_client

from disagfusion.errors import (
    AbortedError,
    AlreadyExistsError,
    DisagfusionError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    ResourceExhaustedError,
    UnavailableError,
)

SERVICE_MANIFEST = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"namespace": "demo", "name": "s"},
}


class Server:
    """Says what it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, dict[str, str], str, Any]] = []
        self.answers: list[tuple[int, Any, dict[str, str]]] = []

    async def handle(self, request: web.Request) -> web.Response:
        text = await request.text()
        self.asked.append(
            (
                request.method,
                request.path,
                dict(request.query),
                request.headers.get("Content-Type", ""),
                json.loads(text) if text else None,
            )
        )
        status, body, headers = self.answers.pop(0) if self.answers else (200, {}, {})
        return web.json_response(body, status=status, headers=headers)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    found = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert runner.addresses
    found.port = runner.addresses[0][1]  # type: ignore[attr-defined]
    yield found
    await runner.cleanup()


@pytest.fixture
async def cluster(server: Server, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    async def at_once(seconds: float) -> None:
        waits.append(seconds)

    waits: list[float] = []
    monkeypatch.setattr(module.asyncio, "sleep", at_once)
    configuration = kubernetes_client.Configuration(
        host=f"http://127.0.0.1:{server.port}"  # type: ignore[attr-defined]
    )
    configuration.retries = None
    calls: list[tuple[str, str, int]] = []
    found = KubernetesCluster(
        kubernetes_client.ApiClient(configuration), lambda *call: calls.append(call), seconds=5.0
    )
    found.calls, found.waits = calls, waits  # type: ignore[attr-defined]
    yield found
    await found.aclose()


async def test_what_is_applied_and_by_whom(server: Server, cluster: Any) -> None:
    await cluster.apply(SERVICE_MANIFEST, force=False)
    assert server.asked.pop()[2]["force"] == "false"
    await cluster.apply(SERVICE_MANIFEST)
    status = {"apiVersion": PIPELINE.api_version, "kind": PIPELINE.kind}
    await cluster.apply_status({**status, "metadata": {"namespace": "demo", "name": "p"}})
    await cluster.scale("demo", "d", 3)
    apply = "application/apply-patch+yaml"
    operator = {"fieldManager": "disagfusion-operator", "force": "true"}
    balancer = {"fieldManager": "disagfusion-balancer", "force": "true"}
    group = "/apis/disagfusion.dev/v1alpha1/namespaces/demo/diffusionpipelines/p/status"
    assert [asked[:4] for asked in server.asked] == [
        ("PATCH", "/api/v1/namespaces/demo/services/s", operator, apply),
        ("PATCH", group, operator, apply),
        ("PATCH", "/apis/apps/v1/namespaces/demo/deployments/d/scale", balancer, apply),
    ]
    assert server.asked[2][4]["spec"] == {"replicas": 3}
    assert cluster.calls[0] == ("patch", "services", 200)


async def test_lists_are_read_to_their_end(server: Server, cluster: Any) -> None:
    page = {"items": [{"metadata": {"name": "a"}}], "metadata": {"continue": "more"}}
    last = {"items": [{"metadata": {"name": "b"}}], "metadata": {}}
    server.answers = [(200, page, {}), (200, last, {}), (200, {**last}, {})]
    found = [one async for one in cluster.list(POD, "demo", {"x": "1", "there": ""})]
    assert [one["metadata"]["name"] for one in found] == ["a", "b"]
    assert {(one["apiVersion"], one["kind"]) for one in found} == {("v1", "Pod")}
    assert server.asked[0][1:3] == (
        "/api/v1/namespaces/demo/pods", {"limit": "100", "labelSelector": "x=1,there"},
    )  # fmt: skip
    assert server.asked[1][2]["continue"] == "more"
    assert [one["kind"] async for one in cluster.list(NODE)] == ["Node"]
    assert server.asked[2][1] == "/api/v1/nodes"


async def test_an_object_is_written_as_a_whole_only_if_nobody_else_did(
    server: Server, cluster: Any
) -> None:
    await cluster.replace(SERVICE_MANIFEST)
    known = {**SERVICE_MANIFEST["metadata"], "resourceVersion": "7"}  # type: ignore[dict-item]
    await cluster.replace({**SERVICE_MANIFEST, "metadata": known})
    assert [asked[:2] for asked in server.asked] == [
        ("POST", "/api/v1/namespaces/demo/services"),
        ("PUT", "/api/v1/namespaces/demo/services/s"),
    ]


async def test_deleting_is_of_this_object_and_may_come_late(server: Server, cluster: Any) -> None:
    server.answers = [(200, {}, {}), (404, {"reason": "NotFound"}, {}), (409, {}, {})]
    for _ in range(3):
        await cluster.delete(DEPLOYMENT, "demo", "d", uid="u-1")
    body = server.asked[0][4]
    assert body["preconditions"] == {"uid": "u-1"}
    assert body["propagationPolicy"] == "Background"
    server.answers = [(409, {}, {})]
    with pytest.raises(AbortedError):
        await cluster.delete(DEPLOYMENT, "demo", "d")


async def test_finalizers_are_set_if_nobody_wrote_meanwhile(server: Server, cluster: Any) -> None:
    await cluster.set_finalizers(PIPELINE, "demo", "p", ["theirs"], version="7")
    server.answers = [(409, {"reason": "Conflict"}, {})]
    with pytest.raises(AbortedError):
        await cluster.set_finalizers(PIPELINE, "demo", "p", [], version="7")
    first, second = server.asked
    assert first[0] == "PATCH"
    assert first[3] == "application/merge-patch+json"
    assert first[4] == {"metadata": {"finalizers": ["theirs"], "resourceVersion": "7"}}
    assert second[4] == {"metadata": {"finalizers": [], "resourceVersion": "7"}}


async def test_annotations_and_events(server: Server, cluster: Any) -> None:
    await cluster.annotate(POD, "demo", "p", {"a": "1", "b": None})
    about = {**SERVICE_MANIFEST, "metadata": {**SERVICE_MANIFEST["metadata"], "uid": "u"}}  # type: ignore[dict-item]
    await cluster.record(about, warning=True, reason="Why", message="x" * 2000, action="Do")
    patch, event = server.asked
    assert patch[3] == "application/merge-patch+json"
    assert patch[4] == {"metadata": {"annotations": {"a": "1", "b": None}}}
    assert event[1] == "/api/v1/namespaces/demo/events"
    assert event[4]["involvedObject"]["uid"] == "u"
    assert event[4]["type"] == "Warning"
    assert len(event[4]["message"]) == 1024


async def test_labels_and_annotations_of_a_pod_are_the_balancers(
    server: Server, cluster: Any
) -> None:
    server.answers = [(200, {"metadata": {"resourceVersion": "8"}}, {})]
    answer = await cluster.relabel(POD, "demo", "p", {"stage": "dit"}, {"a": None})
    assert answer["metadata"]["resourceVersion"] == "8"
    (patch,) = server.asked
    assert patch[0] == "PATCH"
    assert patch[2]["fieldManager"] == "disagfusion-balancer"
    assert patch[3] == "application/merge-patch+json"
    # Nothing but metadata is ever written on a pod.
    assert patch[4] == {"metadata": {"labels": {"stage": "dit"}, "annotations": {"a": None}}}


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (404, {}, NotFoundError),
        (409, {"reason": "AlreadyExists"}, AlreadyExistsError),
        (409, {"reason": "Conflict"}, AbortedError),
        (401, {}, PermissionDeniedError),
        (403, {"message": "forbidden"}, PermissionDeniedError),
        (403, {"message": "exceeded quota: few"}, ResourceExhaustedError),
        (422, {"message": "bad"}, InvalidArgumentError),
    ],
)
async def test_refusals_are_told_as_what_they_are(
    server: Server, cluster: Any, status: int, body: Any, kind: type[DisagfusionError]
) -> None:
    server.answers = [(status, body, {})]
    with pytest.raises(kind) as caught:
        await cluster.get(SERVICE, "demo", "s")
    assert type(caught.value) is kind
    assert len(server.asked) == 1
    assert caught.value.metadata["status"] == str(status)


async def test_the_field_that_is_wrong_is_named(server: Server, cluster: Any) -> None:
    causes = [{"field": "spec.ports", "message": "Required value"}]
    server.answers = [(422, {"message": "no good", "details": {"causes": causes}}, {})]
    with pytest.raises(InvalidArgumentError, match=r"spec\.ports: no good"):
        await cluster.apply(SERVICE_MANIFEST)


async def test_a_server_that_asks_for_patience_is_given_it(server: Server, cluster: Any) -> None:
    server.answers = [(429, {}, {"Retry-After": "3"}), (503, {}, {}), (200, {"a": 1}, {})]
    assert await cluster.get(SERVICE, "demo", "s") == {"a": 1}
    assert cluster.waits[0] == 3.0
    assert len(server.asked) == 3
    # One that was too slow may be quicker the next time.
    server.answers = [(504, {}, {}), (200, {"a": 2}, {})]
    assert await cluster.get(SERVICE, "demo", "s") == {"a": 2}
    server.answers = [(500, {}, {})] * 3
    with pytest.raises(UnavailableError):
        await cluster.get(SERVICE, "demo", "s")


async def test_what_must_not_happen_twice_is_not_sent_twice(server: Server, cluster: Any) -> None:
    server.answers = [(503, {}, {})]
    with pytest.raises(UnavailableError):
        await cluster.replace(SERVICE_MANIFEST)
    assert len(server.asked) == 1


async def test_a_server_that_is_not_there(cluster: Any) -> None:
    cluster._api.configuration.host = "http://127.0.0.1:1"
    with pytest.raises(UnavailableError, match="does not answer"):
        await cluster.get(SERVICE, "demo", "s")
    assert cluster.calls[-1] == ("get", "services", 0)


async def test_without_a_cluster_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    with pytest.raises(UnavailableError, match="no cluster to talk to"):
        await KubernetesCluster.connect()
