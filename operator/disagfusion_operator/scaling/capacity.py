"""How many accelerators a pool has: by its nodes, and by what could not be scheduled on them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from disagfusion_operator.api.base import number
from disagfusion_operator.api.pools import Pool, Toleration
from disagfusion_operator.k8s.port import Object
from disagfusion_operator.k8s.states import condition, is_over
from disagfusion_operator.scaling.fleet import Account, Pod

STATIC_SECONDS = 60.0
"""For so long a pod may wait for a node where nobody brings new ones."""
AUTOSCALED_SECONDS = 900.0
"""The same where somebody does."""
FULL_SECONDS = 600.0
"""For so long a pool counts as full in which a pod has waited for too long."""
LATE_SECONDS = 30.0
"""For so long after its time a pod that has been asked to end may still be about to."""


@dataclass(frozen=True, slots=True, order=True)
class PoolKey:
    """Nodes of one kind; pools of several pipelines with the same key are one pool.

    Attributes:
        selector: Labels of the nodes, sorted.
        resource: That is counted; empty: replicas on the processor.
        owner: Whose it is alone; empty where it may be shared.
    """

    selector: tuple[tuple[str, str], ...]
    resource: str
    owner: str = ""

    def __str__(self) -> str:
        """Return it as people write it."""
        labels = ",".join(f"{name}={value}" for name, value in self.selector)
        return f"{self.resource or 'processor'} on {labels or 'all nodes'}"


def key_of(pool: Pool, owner: str) -> PoolKey:
    """Return which nodes a pool is.

    Args:
        pool: Of a pipeline.
        owner: The pipeline: without an accelerator a pool is its own.
    """
    selector = tuple(sorted(pool.node_selector.items()))
    if pool.accelerator is None:
        return PoolKey(selector, "", owner)
    return PoolKey(selector, pool.accelerator.resource)


@dataclass(frozen=True, slots=True)
class Offer:
    """What the nodes of a pool have.

    Attributes:
        accelerators: That pods may be put on.
        closed: Nodes that take no more pods: cordoned, or not ready.
        open: Nodes that do.
    """

    accelerators: int
    closed: frozenset[str] = frozenset()
    open: frozenset[str] = frozenset()


def offered(nodes: Iterable[Object], key: PoolKey, tolerations: Sequence[Toleration]) -> Offer:
    """Return what the nodes of a pool have.

    Args:
        nodes: Of the cluster.
        key: Which of them count.
        tolerations: Of the pods.
    """
    total, closed, accepting = 0, set(), set()
    for node in nodes:
        labels = node["metadata"].get("labels") or {}
        if any(labels.get(name) != value for name, value in key.selector):
            continue
        status, spec = node.get("status", {}), node.get("spec", {})
        taints = [one for one in spec.get("taints") or () if not _automatic(one)]
        if any(not _tolerated(taint, tolerations) for taint in taints):
            continue
        if spec.get("unschedulable") or condition(node, "Ready").get("status") != "True":
            closed.add(node["metadata"]["name"])
            continue
        accepting.add(node["metadata"]["name"])
        total += int(number((status.get("allocatable") or {}).get(key.resource, 0)))
    return Offer(total, frozenset(closed), frozenset(accepting))


def _automatic(taint: Mapping[str, Any]) -> bool:
    """Whether a taint says what the node's state says as well."""
    return str(taint.get("key", "")).startswith("node.kubernetes.io/")


def _tolerated(taint: Mapping[str, Any], tolerations: Sequence[Toleration]) -> bool:
    if taint.get("effect") == "PreferNoSchedule":
        return True
    return any(
        (not one.effect or one.effect == taint.get("effect"))
        and (not one.key or one.key == taint.get("key"))
        and (one.operator == "Exists" or one.value == (taint.get("value") or ""))
        for one in tolerations
    )


def holdings(pods: Iterable[Object]) -> Counter[tuple[str, str]]:
    """Return what pods hold on nodes, by node and resource, as far as others can lack it."""
    found: Counter[tuple[str, str]] = Counter()
    for pod in pods:
        node = pod.get("spec", {}).get("nodeName")
        if not node or is_over(pod):
            continue
        for container in pod["spec"].get("containers") or ():
            resources = container.get("resources") or {}
            for name, count in (resources.get("requests") or resources.get("limits") or {}).items():
                if "/" in name:
                    found[node, name] += int(number(count))
    return found


def making_room(account: Account, closed: Collection[str], now: float) -> tuple[Pod, ...]:
    """Return the pods that leave and will soon have made room for others.

    Nobody is to wait for one that does not come to its end, as on a node that has died, nor for one
    on a node that takes no others.

    Args:
        account: Of a place.
        closed: Nodes that take no more pods.
        now: Unix seconds.
    """
    return tuple(
        pod
        for pod in account.leaving
        if pod.node
        and pod.node not in closed
        and pod.ends_by is not None
        and now < pod.ends_by + LATE_SECONDS
    )


def patience(pool: Pool) -> float:
    """Return for how many seconds a pod may wait for a node."""
    if pool.provisioning_timeout_seconds is not None:
        return float(pool.provisioning_timeout_seconds)
    return AUTOSCALED_SECONDS if pool.provisioning == "Autoscaled" else STATIC_SECONDS


@dataclass(frozen=True, slots=True)
class Full:
    """A pool in which something waited for too long.

    Attributes:
        accelerators: That could be had.
        until: Unix seconds until which it counts as full.
        message: Why.
        offered: That its nodes had then: with more, it is not full any more.
    """

    accelerators: int
    until: float
    message: str
    offered: int = 0


@dataclass(slots=True)
class Learned:
    """What could not be scheduled, by pool; of a quota also by pipeline.

    Attributes:
        full: (pool, owner) → how much there is; the owner is empty where nodes were lacking.
    """

    full: dict[tuple[PoolKey, str], Full] = field(default_factory=dict)

    def note(self, key: PoolKey, owner: str, found: Full) -> bool:
        """Take note that there is no more to be had; return whether that is news."""
        known = self.full.get((key, owner))
        self.full[key, owner] = found
        return known is None

    def of(self, key: PoolKey, owner: str, now: float) -> Full | None:
        """Return what was noted of a pool for exactly this owner."""
        found = self.full.get((key, owner))
        if found is not None and found.until <= now:
            del self.full[key, owner]
            return None
        return found

    def at(self, key: PoolKey, owner: str, now: float) -> Full | None:
        """Return what bounds a pool for an owner."""
        found = [self.of(key, one, now) for one in {"", owner}]
        bounding = [one for one in found if one is not None]
        return min(bounding, key=lambda one: one.accelerators, default=None)

    def disprove(self, key: PoolKey, placed: int, offered: int) -> bool:
        """Give up that there is no more, where more has found nodes or nodes have come.

        Args:
            key: Which pool.
            placed: Accelerators that pods with a node hold.
            offered: That nodes have.
        """
        found = self.full.get((key, ""))
        if found is None or (placed <= found.accelerators and offered <= found.offered):
            return False
        del self.full[key, ""]
        return True


@dataclass(frozen=True, slots=True)
class Overdue:
    """Replicas of a place that have waited for too long.

    Attributes:
        keep: Replicas that did find a node.
        quota: Whether pods were refused, instead of finding no node.
        message: What the API server or the scheduler says.
    """

    keep: int
    quota: bool
    message: str


def overdue(account: Account, seconds: float, now: float, *, freed_at: float) -> Overdue | None:
    """Return whether replicas have waited for too long.

    Args:
        account: Of the place.
        seconds: For which a pod may wait for a node.
        now: Unix seconds.
        freed_at: When somebody was leaving the pool last: until then their room is waited for.
    """
    refusal = account.refusal
    missing = account.asked - len(account.live)
    if refusal is not None and missing > 0 and now - refusal.since >= min(seconds, STATIC_SECONDS):
        return Overdue(len(account.live), True, refusal.message or "pods are refused")
    waiting = [one for one in account.live if one.unschedulable]
    if not waiting or now - max(waiting[0].created, freed_at) < seconds:
        return None
    message = f"{len(waiting)} pods found no node in {seconds:.0f} s"
    return Overdue(len(account.live) - len(waiting), False, message)
