"""Faults of all kinds, drawn at random, one after the other, under a constant stream of jobs.

`DISAGFUSION_SOAK_MINUTES` says for how long, `DISAGFUSION_SOAK_SEED` draws others.
"""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.cluster.faults.load import LEAST, Load, two
from tests.cluster.operator.pipelines import (
    SECONDS,
    SYSTEM,
    Installation,
    Pipelines,
    end_of,
    eventually,
)
from tests.cluster.testing import Cluster
from tools.cluster import faults
from tools.cluster.errors import ClusterError

GROWTH_MIB = {"operator": 96, "gateway": 64}
"""How much more memory they may ever have than at first."""
MINUTES = float(os.environ.get("DISAGFUSION_SOAK_MINUTES", "3"))
SEED = int(os.environ.get("DISAGFUSION_SOAK_SEED", "1"))
NAME = "soak"
_PAUSES = 2.0, 12.0
"""Seconds between two faults: some come before the last one is mended."""
_AWAY = 10.0
"""Seconds for which nodes and the API server are away."""


@dataclass
class Breaker:
    """Breaks things.

    Attributes:
        cluster: Where.
        pipelines: Whose.
        installation: The operator.
        chance: Draws.
        done: Faults that have happened.
    """

    cluster: Cluster
    pipelines: Pipelines
    installation: Installation
    chance: random.Random
    done: Counter[str] = field(default_factory=Counter)

    @property
    def complete(self) -> bool:
        """Whether each kind has happened."""
        return all(self.done[kind] for kind in self.kinds)

    @property
    def kinds(self) -> dict[str, Callable[[], None]]:
        """All kinds of faults; each returns when it has been seen to have happened."""
        return {
            "operator killed": self._kill_operator,
            "worker deleted": self._delete_worker,
            "worker killed": self._kill_worker,
            "gateway killed": self._kill_gateway,
            "node cut off": self._cut,
            "API server away": self._stop_api,
            "Deployment edited": self._edit,
            "Deployment scaled": self._scale,
            "Deployment deleted": self._delete_deployment,
            "Service deleted": self._delete_service,
            "bounds changed": self._rebound,
            "new version": self._roll,
        }

    def one(self) -> None:
        """Let one fault happen."""
        # Each happens before any happens again.
        least = min(self.done[kind] for kind in self.kinds)
        kind = self.chance.choice([one for one in self.kinds if self.done[one] == least])
        self.kinds[kind]()
        self.done[kind] += 1

    def _stage(self) -> str:
        return self.chance.choice([*SECONDS])

    def _workers(self) -> dict[str, str]:
        return {
            pod: uid for stage in SECONDS for pod, uid in self.pipelines.pods(NAME, stage).items()
        }

    def _kill_operator(self) -> None:
        self._kill(SYSTEM, lambda: self.installation.pods())

    def _kill_worker(self) -> None:
        self._kill(self.pipelines.namespace, lambda: sorted(self._workers()))

    def _kill_gateway(self) -> None:
        self._kill(self.pipelines.namespace, lambda: sorted(self.pipelines.pods(NAME, "gateway")))

    def _kill(self, namespace: str, pods: Callable[[], list[str]]) -> None:
        """Kill the container of one of these as soon as there is one that runs."""
        kubectl = self.cluster.kubectl

        def killed() -> tuple[str, str]:
            pod = self.chance.choice(pods())
            return pod, faults.signal_container(
                self.cluster.layout, kubectl, namespace, pod, signal.SIGKILL
            )

        pod, container = self._done("a container is killed", killed)

        def over() -> bool:
            if not kubectl("-n", namespace, "get", "pod", pod, "--ignore-not-found"):
                return True
            ended = end_of(kubectl, namespace, pod, container)
            return ended is not None and ended["exitCode"] == 128 + signal.SIGKILL

        eventually("its end is told", 60, over)

    def _delete_worker(self) -> None:
        def deleted() -> str:
            pod, uid = self.chance.choice(sorted(self._workers().items()))
            self.pipelines("delete", "pod", pod, "--wait=false")
            return uid

        uid = self._done("a worker is deleted", deleted)
        eventually("it goes", 30, lambda: uid not in self._workers().values())

    def _cut(self) -> None:
        node = self.chance.choice(self.cluster.nodes[:2])
        faults.partition(self.cluster.layout, node)
        assert faults.partitioned(self.cluster.layout) == [node]
        try:
            time.sleep(_AWAY)
        finally:
            faults.heal(self.cluster.layout, node)
        self.cluster.kubectl("wait", "--for=condition=Ready", f"node/{node}", "--timeout=90s")

    def _stop_api(self) -> None:
        faults.stop_apiserver(self.cluster.layout)
        try:
            time.sleep(_AWAY)
            assert not self.cluster.kubectl.succeeds("get", "--raw", "/readyz", seconds=10)
        finally:
            faults.start_apiserver(self.cluster.layout)

    def _edit(self) -> None:
        container = f"{{}}=localhost/none:{self.chance.randrange(10**6)}"
        stage = self._stage()
        self._change(stage, "set", "image", "deployment/{}", container.format(stage))

    def _scale(self) -> None:
        # In turn: whoever scales one three times within ten minutes is given it.
        stage = [*SECONDS][self.done["Deployment scaled"] % len(SECONDS)]

        def other() -> list[str]:
            asked = self._deployment(stage)["spec"]["replicas"]
            return [f"--replicas={self.chance.choice([n for n in range(4) if n != asked])}"]

        self._change(stage, "scale", "deployment/{}", more=other)

    def _change(
        self, stage: str, *arguments: str, more: Callable[[], list[str]] = lambda: []
    ) -> None:
        """Change the Deployment of a stage, which makes it another generation."""
        words = [one.format(f"{NAME}-{stage}-small") for one in arguments]

        def changed() -> int:
            before = int(self._deployment(stage)["metadata"]["generation"])
            self.pipelines(*words, *more())
            return before

        before = self._done(" ".join(words), changed)

        def seen() -> bool:
            return bool(self._deployment(stage)["metadata"]["generation"] > before)

        eventually("it is another generation", 30, seen)

    def _deployment(self, stage: str) -> dict[str, Any]:
        return self.pipelines.json("get", "deployment", f"{NAME}-{stage}-small")

    def _delete_deployment(self) -> None:
        self._delete("deployment", f"{NAME}-{self._stage()}-small")

    def _delete_service(self) -> None:
        self._delete("service", f"{NAME}-{self._stage()}")

    def _delete(self, kind: str, name: str) -> None:
        def uid() -> str:
            return str(self.pipelines.json("get", kind, name)["metadata"]["uid"])

        def deleted() -> str:
            before = uid()
            self.pipelines("delete", kind, name, "--wait=false")
            return before

        before = self._done(f"{kind} {name} is deleted", deleted)
        eventually("another is in its place", 60, lambda: uid() != before)

    def _rebound(self) -> None:
        spec = self.pipelines.json("get", "dfp", NAME)["spec"]
        self._respecify({"minReplicas": 3 - spec["stages"]["dit"]["minReplicas"]})

    def _roll(self) -> None:
        spec = self.pipelines.json("get", "dfp", NAME)["spec"]
        self._respecify({"threads": spec["stages"]["dit"].get("threads", 1) % 1000 + 1})

    def _respecify(self, change: dict[str, Any]) -> None:
        """Change what the DiTs are to be like, which makes it another generation."""

        def generation() -> int:
            return int(self.pipelines.json("get", "dfp", NAME)["metadata"]["generation"])

        before = generation()
        self.pipelines.patch(NAME, {"spec": {"stages": {"dit": change}}})
        assert generation() > before

    def memory(self) -> dict[str, float]:
        """Return the MiB that the operator and the gateway have, once both are there."""
        found: dict[str, float] = self._done("what they have", self._memory)
        return found

    def _memory(self) -> dict[str, float]:
        (gateway,) = self.pipelines.pods(NAME, "gateway")
        pods = {
            "operator": (SYSTEM, self.installation.leader()),
            "gateway": (self.pipelines.namespace, gateway),
        }
        found = {}
        for what, (namespace, pod) in pods.items():
            status = self.cluster.kubectl(
                "-n", namespace, "exec", pod, "--", "cat", "/proc/1/status"
            )
            resident = re.search(r"^VmRSS:\s+(\d+) kB", status, re.M)
            assert resident is not None, "Linux counts it"
            found[what] = int(resident[1]) / 1024
        return found

    def _done(self, what: str, act: Callable[[], Any]) -> Any:
        """Do it as soon as what it is done to is there."""

        def tried() -> Any:
            try:
                return act()
            except (IndexError, ValueError, ClusterError):
                return None

        return eventually(what, 120, tried)


@pytest.fixture
def breaker(
    cluster: Cluster, pipelines: Pipelines, installation: Installation
) -> Iterator[Breaker]:
    """One that leaves the cluster whole."""
    found = Breaker(cluster, pipelines, installation, random.Random(SEED))
    yield found
    for node in faults.partitioned(cluster.layout):
        faults.heal(cluster.layout, node)
    eventually("an operator leads", 120, lambda: installation.leader() in installation.pods())


@pytest.mark.timeout(900 + 60 * MINUTES)
def test_nothing_is_lost_whatever_breaks(breaker: Breaker) -> None:
    pipelines = breaker.pipelines
    pipelines.write(two(NAME, scaling={"mode": "Auto", "budget": 4}))
    pipelines.settled(NAME)
    service = pipelines.json("get", "service", NAME)["spec"]["clusterIP"]
    begin = time.monotonic()
    with Load(f"{service}:7420") as load:
        load.wait_busy()
        at_first = breaker.memory()
        most = dict(at_first)
        while time.monotonic() - begin < 60 * MINUTES or not breaker.complete:
            # Those that come while no gateway is there are submitted afterwards.
            eventually("it is busy", 120, lambda: load.under_way >= LEAST)
            breaker.one()
            time.sleep(breaker.chance.uniform(*_PAUSES))
            most = {what: max(size, most[what]) for what, size in breaker.memory().items()}
        pipelines.settled(NAME, 240)
        load.wait_ended(5, 240)
        jobs = load.check(600)
    took = (time.monotonic() - begin) / 60
    print(f"{len(jobs)} jobs in {took:.1f} minutes, {sum(breaker.done.values())} faults")
    for kind, count in sorted(breaker.done.items()):
        print(f"  {count:4} {kind}")
    again = Counter(job.attempt for job in jobs)
    print(f"attempts: {dict(sorted(again.items()))}")
    for what, size in most.items():
        print(f"{what}: {at_first[what]:.0f} MiB at first, {size:.0f} MiB at most")
        assert size - at_first[what] < GROWTH_MIB[what]
    assert any(job.attempt > 1 for job in jobs), "nothing was interrupted"
