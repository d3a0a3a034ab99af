"""The operator's process: settings, probes, watches, and what it does not load."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Mapping
from typing import Any

import kopf
import pytest
from disagfusion_operator import handlers
from disagfusion_operator.api.base import STAGES
from disagfusion_operator.desired.inputs import Release
from disagfusion_operator.health import HealthServer, Vitals
from disagfusion_operator.k8s.kinds import NODE, PIPELINE, POD, SERVICE
from disagfusion_operator.k8s.port import Kind, Object
from disagfusion_operator.reconcile.cache import Cache
from disagfusion_operator.reconcile.gateways import GrpcGateways
from disagfusion_operator.reconcile.surroundings import release_of
from disagfusion_operator.runtime import Runtime
from disagfusion_operator.scaling.view import Key
from disagfusion_operator.settings import OperatorSettings
from fakes import FakeClock, FakeCluster, pipeline
from pydantic import ValidationError

from disagfusion.errors import FailedPreconditionError, NotFoundError, PermissionDeniedError


def ask(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def test_probes_tell_life_from_readiness() -> None:
    clock = FakeClock(0.0)
    vitals = Vitals(clock, 100.0)
    server = HealthServer("127.0.0.1:0", vitals)
    try:
        assert ask(server.address, "/healthz") == (200, "ok")
        assert ask(server.address, "/readyz") == (503, "starting")
        vitals.ready = True
        assert ask(server.address, "/readyz") == (200, "stands by")
        vitals.leads = True
        assert ask(server.address, "/readyz") == (200, "leads")
        overdue = 0.0
        vitals.follow(lambda: overdue)
        clock.now = 90.0
        vitals.beat()
        overdue = 101.0
        assert ask(server.address, "/healthz") == (
            503, "no look at a pipeline has ended for 101 s",
        )  # fmt: skip
        # Who stands by looks at nothing.
        vitals.leads = False
        assert ask(server.address, "/healthz")[0] == 200
        clock.now = 200.0
        status, text = ask(server.address, "/healthz")
        assert (status, text) == (503, "the event loop has done nothing for 110 s")
        assert ask(server.address, "/other")[0] == 404
    finally:
        server.close()


def test_an_address_that_is_taken_is_told() -> None:
    first = HealthServer("127.0.0.1:0", Vitals(FakeClock(), 1.0))
    try:
        with pytest.raises(FailedPreconditionError, match="cannot serve health"):
            HealthServer(first.address, Vitals(FakeClock(), 1.0))
    finally:
        first.close()


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        "WATCH_NAMESPACES": "a, b",
        "IMAGE_DIT": "registry/dit@sha256:1",
        "IMAGE_PULL_SECRETS": "one,two",
        "CLIENT_NAMESPACES": '{"team": "x"}',
        "POD_MONITORS": "auto",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"DISAGFUSION_OPERATOR_{name}", value)
    settings = OperatorSettings()
    assert settings.namespaces == ("a", "b")
    release = release_of(settings, pod_monitors=True)
    assert isinstance(release, Release)
    assert release.images["dit"] == "registry/dit@sha256:1"
    assert release.images["emulated"] == "disagfusion-emulated"
    assert set(release.images) == {*STAGES, "gateway", "flex", "emulated"}
    assert release.pull_secrets == ("one", "two")
    assert release.client_namespaces == {"team": "x"}


def test_a_wrong_setting_is_one_clear_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "disagfusion_operator"],
        env={"PATH": "/usr/bin", "DISAGFUSION_OPERATOR_WORKERS": "many"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("disagfusion-operator: DISAGFUSION_OPERATOR_WORKERS: ")


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"RENEW": "15"}, "lease_renew_seconds"),
        ({"LEASE": "10.9"}, "lease_renew_seconds"),
        ({"RETRY": "10"}, "lease_retry_seconds"),
        ({"LEASE": "4", "RENEW": "3", "RETRY": "3"}, "lease_retry_seconds"),
    ],
)
def test_a_leader_has_to_give_up_before_another_may_take_over(
    values: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {
        "LEASE": "LEASE_SECONDS", "RENEW": "LEASE_RENEW_SECONDS", "RETRY": "LEASE_RETRY_SECONDS",
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(f"DISAGFUSION_OPERATOR_{names[name]}", value)
    with pytest.raises(ValidationError) as caught:
        OperatorSettings()
    (problem,) = caught.value.errors()
    assert problem["loc"] == (named,)
    assert "expected less than" in problem["msg"]


def test_shorter_leases_than_usual_are_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"": "4", "RENEW_": "3.9", "RETRY_": "1"}.items():
        monkeypatch.setenv(f"DISAGFUSION_OPERATOR_LEASE_{name}SECONDS", value)
    assert OperatorSettings().lease_renew_seconds == 3.9


def test_the_process_loads_no_torch_and_no_solver() -> None:
    script = (
        "import json, sys, disagfusion_operator.__main__; "
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    heavy = {"torch", "numpy", "scipy", "sklearn", "highspy", "diffusers", "ucxx", "sqlalchemy"}
    assert not heavy & set(json.loads(done.stdout))


async def test_watches_fill_the_cache() -> None:
    woken: list[Key] = []
    cache = Cache(woken.append)
    follow = handlers._follower(cache, PIPELINE)
    found = {**pipeline(), "metadata": {"namespace": "demo", "name": "digits", "uid": "u"}}
    found["metadata"]["managedFields"] = [{}]
    await follow({"type": None, "object": found})
    assert cache.pipelines() == [Key("demo", "digits")]
    assert "managedFields" in found["metadata"], "kopf's own object is left as it is"
    await follow({"type": "DELETED", "object": found})
    assert cache.pipelines() == []
    assert woken == [Key("demo", "digits")] * 2


def test_kopf_watches_and_does_nothing_else() -> None:
    registry = handlers.registry(Cache(), [PIPELINE, POD, NODE, SERVICE])
    assert not registry._changing.get_all_handlers()
    assert not registry._spawning.get_all_handlers()
    watched = registry._watching.get_all_handlers()
    assert [(one.selector.group, one.selector.any_name) for one in watched] == [
        ("disagfusion.dev", "diffusionpipelines"), ("", "pods"), ("", "nodes"), ("", "services"),
    ]  # fmt: skip
    settings = handlers.settings()
    assert isinstance(settings, kopf.OperatorSettings)
    assert not settings.posting.enabled
    assert settings.scanning.disabled
    assert "zalando" not in settings.persistence.finalizer
    assert settings.networking.request_timeout is not None


class Partial(FakeCluster):
    """An API server that does not know some kinds, or does not show them."""

    def __init__(self) -> None:
        super().__init__()
        self.missing: dict[str, Exception] = {}
        self.listed: list[tuple[str, str]] = []

    async def list(self, kind: Any, namespace: str = "", labels: Any = None) -> Any:
        self.listed.append((kind.plural, namespace))
        if kind.plural in self.missing:
            raise self.missing[kind.plural]
        async for one in super().list(kind, namespace, labels):
            yield one


def runtime(cluster: FakeCluster, **settings: Any) -> Runtime:
    return Runtime(
        cluster, GrpcGateways(), OperatorSettings(**settings), lambda seconds, failed: None
    )


async def test_kinds_that_are_not_there_are_done_without() -> None:
    cluster = Partial()
    cluster.missing = {
        "podmonitors": NotFoundError("no such kind"),
        "scaledobjects": NotFoundError("no such kind"),
        "nodes": PermissionDeniedError("nodes is forbidden"),
    }
    kinds = await runtime(cluster, watch_namespaces="a,b").known_kinds()
    plurals = [kind.plural for kind in kinds]
    assert plurals[0] == "diffusionpipelines"
    assert not set(cluster.missing) & set(plurals)
    assert "deployments" in plurals
    # In namespaces of its own it asks for nothing beyond them, but for nodes.
    assert {space for plural, space in cluster.listed if plural == "pods"} == {"a", "b"}
    assert ("nodes", "") in cluster.listed


async def test_the_definition_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Partial()
    cluster.missing = {"diffusionpipelines": NotFoundError("no such kind")}
    waited = asyncio.Event()

    async def sleep(seconds: float) -> None:
        cluster.missing.clear()
        waited.set()

    monkeypatch.setattr("disagfusion_operator.runtime.asyncio.sleep", sleep)
    assert PIPELINE in await runtime(cluster).known_kinds()
    assert waited.is_set()


async def test_what_a_watch_has_missed_is_found_by_the_next_list() -> None:
    cluster = FakeCluster()
    cluster.create(pipeline())
    found = runtime(cluster)
    await found.fill([PIPELINE, POD])
    assert found.cache.pipelines() == [Key("demo", "digits")]
    cluster.stored.clear()
    await found.fill([PIPELINE, POD])
    assert found.cache.pipelines() == []


async def test_what_goes_while_the_watches_begin_is_found_soon(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("disagfusion_operator.runtime._AGAIN_SECONDS", 0.2)
    cluster = FakeCluster()
    labels = {"disagfusion.dev/pipeline": "digits"}
    cluster.create(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": "demo", "name": "digits-dit", "labels": labels},
        }
    )
    key, found = Key("demo", "digits"), runtime(cluster)
    running = asyncio.create_task(found.run([SERVICE]))

    async def until(there: bool) -> None:
        for _ in range(1000):
            if bool(found.cache.children(key)) is there:
                return
            await asyncio.sleep(0.01)
        raise AssertionError(f"never {there}")

    await until(True)
    cluster.stored.clear()
    await until(False)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_namespace_that_refuses_keeps_no_other_from_being_listed() -> None:
    class Refusing(FakeCluster):
        async def list(
            self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None
        ) -> AsyncIterator[Object]:
            if namespace == "gone":
                raise PermissionDeniedError(f"{kind.plural} is forbidden in {namespace}")
            async for one in super().list(kind, namespace, labels):
                yield one

    cluster = Refusing()
    cluster.create(pipeline())
    found = runtime(cluster, watch_namespaces="gone,demo")
    with pytest.raises(PermissionDeniedError, match="forbidden in gone"):
        await found.fill([PIPELINE, POD])
    assert found.cache.pipelines() == [Key("demo", "digits")]
