"""Faults of all kinds, drawn at random, one after the other, under a constant stream of jobs.

`DISAGFUSION_SOAK_MINUTES` says for how long, `DISAGFUSION_SOAK_SEED` draws others.
"""

from __future__ import annotations

import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from tests.cluster.faults.load import Load, two
from tests.cluster.operator.pipelines import SECONDS, SYSTEM, Installation, Pipelines, eventually
from tests.cluster.testing import Cluster
from tools.cluster import faults

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

    def one(self) -> None:
        """Let one fault happen."""
        kinds: dict[str, Callable[[], None]] = {
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
        # Each happens before any happens again.
        least = min(self.done[kind] for kind in kinds)
        kind = self.chance.choice([one for one in kinds if self.done[one] == least])
        kinds[kind]()
        self.done[kind] += 1

    def _stage(self) -> str:
        return self.chance.choice([*SECONDS])

    def _worker(self) -> str:
        pods = eventually("a worker", 120, lambda: sorted(self._workers()))
        return str(self.chance.choice(pods))

    def _workers(self) -> list[str]:
        return [pod for stage in SECONDS for pod in self.pipelines.pods(NAME, stage)]

    def _kill_operator(self) -> None:
        self.installation.kill(self.chance.choice(self.installation.pods()))

    def _delete_worker(self) -> None:
        self.pipelines("delete", "pod", self._worker(), "--wait=false", "--ignore-not-found")

    def _kill_worker(self) -> None:
        self._kill(self._worker())

    def _kill_gateway(self) -> None:
        pods = eventually("a gateway", 120, lambda: self.pipelines.pods(NAME, "gateway"))
        self._kill(next(iter(pods)))

    def _kill(self, pod: str) -> None:
        self.pipelines("delete", "pod", pod, "--grace-period=0", "--force", "--ignore-not-found")

    def _cut(self) -> None:
        node = self.chance.choice(self.cluster.nodes[:2])
        faults.partition(self.cluster.layout, node)
        try:
            time.sleep(_AWAY)
        finally:
            faults.heal(self.cluster.layout, node)
        self.cluster.kubectl("wait", "--for=condition=Ready", f"node/{node}", "--timeout=90s")

    def _stop_api(self) -> None:
        faults.stop_apiserver(self.cluster.layout)
        try:
            time.sleep(_AWAY)
        finally:
            faults.start_apiserver(self.cluster.layout)

    def _edit(self) -> None:
        stage = self._stage()
        container = f"{stage}=localhost/none:{self.chance.randrange(10**6)}"
        self._try("set", "image", f"deployment/{NAME}-{stage}-small", container)

    def _scale(self) -> None:
        replicas = f"--replicas={self.chance.randrange(4)}"
        # In turn: whoever scales one three times within ten minutes is given it.
        stage = [*SECONDS][self.done["Deployment scaled"] % len(SECONDS)]
        self._try("scale", f"deployment/{NAME}-{stage}-small", replicas)

    def _delete_deployment(self) -> None:
        self._try("delete", "deployment", f"{NAME}-{self._stage()}-small", "--wait=false")

    def _delete_service(self) -> None:
        self._try("delete", "service", f"{NAME}-{self._stage()}")

    def _try(self, *arguments: str) -> None:
        """Do it as soon as what it is done to is there."""
        eventually(" ".join(arguments), 120, lambda: self.pipelines(*arguments))

    def _rebound(self) -> None:
        stages = {"dit": {"minReplicas": self.chance.choice([1, 2])}}
        self.pipelines.patch(NAME, {"spec": {"stages": stages}})

    def _roll(self) -> None:
        stages = {"dit": {"threads": self.chance.randrange(1, 1000)}}
        self.pipelines.patch(NAME, {"spec": {"stages": stages}})


def memory(cluster: Cluster, pipelines: Pipelines, installation: Installation) -> dict[str, float]:
    """Return the MiB that the operator and the gateway have."""
    pods = {
        "operator": (SYSTEM, installation.leader()),
        "gateway": (pipelines.namespace, next(iter(pipelines.pods(NAME, "gateway")))),
    }
    found = {}
    for what, (namespace, pod) in pods.items():
        status = cluster.kubectl("-n", namespace, "exec", pod, "--", "cat", "/proc/1/status")
        resident = re.search(r"^VmRSS:\s+(\d+) kB", status, re.M)
        assert resident is not None, "Linux counts it"
        found[what] = int(resident[1]) / 1024
    return found


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
        while time.monotonic() - begin < 60 * MINUTES:
            breaker.one()
            time.sleep(breaker.chance.uniform(*_PAUSES))
        pipelines.settled(NAME, 240)
        load.wait_ended(5, 240)
        jobs = load.check(600)
    took = (time.monotonic() - begin) / 60
    print(f"{len(jobs)} jobs in {took:.1f} minutes, {sum(breaker.done.values())} faults")
    for kind, count in sorted(breaker.done.items()):
        print(f"  {count:4} {kind}")
    again = Counter(job.attempt for job in jobs)
    print(f"attempts: {dict(sorted(again.items()))}")
    for what, size in memory(breaker.cluster, pipelines, breaker.installation).items():
        print(f"{what}: {size:.0f} MiB")
    assert any(job.attempt > 1 for job in jobs), "nothing was interrupted"
