"""Pipelines are deleted, and waited for, before their operator goes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import pytest
from disagfusion_operator.k8s.port import Cluster, Kind, Object
from disagfusion_operator.uninstall import delete_pipelines

from disagfusion.errors import PermissionDeniedError, UnavailableError


class Draining:
    """Pipelines that take a few looks to go."""

    def __init__(self, *names: str, looks: int = 2) -> None:
        self.looks = dict.fromkeys(names, looks)
        self.asked: list[str] = []
        self.seconds = 0.0
        self.trouble: list[Exception] = []

    async def list(
        self, kind: Kind, namespace: str = "", labels: Mapping[str, str] | None = None
    ) -> AsyncIterator[Object]:
        if self.trouble:
            raise self.trouble.pop(0)
        for name in self.asked:
            self.looks[name] -= 1
        left = [name.split("/") for name, looks in self.looks.items() if looks > 0]
        for space, name in left:
            if namespace in ("", space):
                yield {"metadata": {"namespace": space, "name": name, "uid": f"uid-{name}"}}

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str = "") -> None:
        assert uid == f"uid-{name}"
        self.asked.append(f"{namespace}/{name}")

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds

    async def run(self, *namespaces: str, seconds: float = 60) -> list[str]:
        assert isinstance(self, Draining)
        cluster: Cluster = self  # type: ignore[assignment]
        return await delete_pipelines(
            cluster,
            namespaces,
            seconds=seconds,
            say=lambda line: None,
            now=lambda: self.seconds,
            sleep=self.sleep,
        )


async def test_each_is_deleted_once_and_waited_for() -> None:
    cluster = Draining("a/one", "b/two")
    assert await cluster.run() == []
    assert sorted(cluster.asked) == ["a/one", "b/two"]
    assert cluster.seconds > 0


async def test_only_those_of_the_operators_namespaces_are() -> None:
    cluster = Draining("a/one", "b/two")
    assert await cluster.run("a") == []
    assert cluster.asked == ["a/one"]


async def test_who_does_not_go_is_named() -> None:
    cluster = Draining("a/one", looks=1000)
    assert await cluster.run(seconds=10) == ["a/one"]
    assert cluster.seconds == 10


async def test_a_server_that_is_away_is_asked_again() -> None:
    cluster = Draining("a/one")
    cluster.trouble = [UnavailableError("away"), UnavailableError("away")]
    assert await cluster.run() == []
    assert cluster.asked == ["a/one"]


async def test_a_refusal_is_told() -> None:
    cluster = Draining("a/one")
    cluster.trouble = [PermissionDeniedError("no")]
    with pytest.raises(PermissionDeniedError):
        await cluster.run()
