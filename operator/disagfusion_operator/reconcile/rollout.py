"""Which stages may get a new version now: from the front to the back, after the last old job.

Jobs of the old version finish with it, those that come meanwhile wait in front of the stages that
still have it. So no job meets two versions, and no accelerator beyond those that there are is used.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from disagfusion.scheduling.decision import Place
from disagfusion_operator.api.base import STAGES
from disagfusion_operator.desired.names import COMPONENT_LABEL, version_of
from disagfusion_operator.k8s.port import Object
from disagfusion_operator.k8s.states import is_leaving, is_over, is_ready
from disagfusion_operator.reconcile.gateways import Fleet


@dataclass(frozen=True, slots=True)
class Turn:
    """What a stage may do.

    Attributes:
        old: Whether something of it still has another version.
        may: Whether it may get the new one.
        why: What it waits for, where it may not.
    """

    old: bool
    may: bool
    why: str = ""


@dataclass(frozen=True, slots=True)
class Versions:
    """Which versions a stage has.

    Attributes:
        templates: Of its Deployments.
        pods: Of pods that have not been asked to end.
        ready: Of those of them that take work.
    """

    templates: frozenset[str] = frozenset()
    pods: frozenset[str] = frozenset()
    ready: frozenset[str] = frozenset()

    def old(self, target: str) -> bool:
        """Tell whether any is another than the target."""
        return bool((self.templates | self.pods) - {target})


def versions_of(
    deployments: Mapping[Place, Object], pods: Iterable[Object], strays: Iterable[Object] = ()
) -> dict[str, Versions]:
    """Return which versions the stages have.

    Args:
        deployments: Of stages, by place.
        pods: Of all stages.
        strays: Deployments of places that are no more: jobs may need them until they are drained.
    """
    templates: dict[str, set[str]] = {stage: set() for stage in STAGES}
    running: dict[str, set[str]] = {stage: set() for stage in STAGES}
    ready: dict[str, set[str]] = {stage: set() for stage in STAGES}
    for place, deployment in deployments.items():
        templates[place.stage].add(version_of(deployment["spec"]["template"]))
    for stray in strays:
        stage = (stray["metadata"].get("labels") or {}).get(COMPONENT_LABEL)
        if stage in templates and stray["spec"].get("replicas", 0):
            templates[stage].add(version_of(stray["spec"]["template"]))
    for pod in pods:
        stage = (pod["metadata"].get("labels") or {}).get("disagfusion.dev/stage")
        if stage in running and not is_leaving(pod) and not is_over(pod):
            running[stage].add(version_of(pod))
            if is_ready(pod):
                ready[stage].add(version_of(pod))
    return {
        stage: Versions(*map(frozenset, (templates[stage], running[stage], ready[stage])))
        for stage in STAGES
    }


def needs_fleet(target: str, versions: Mapping[str, Versions]) -> bool:
    """Tell whether the jobs' versions have to be known: a stage behind the first has an old one."""
    return any(versions[stage].templates - {target} for stage in STAGES[1:])


def turns(target: str, versions: Mapping[str, Versions], fleet: Fleet | None) -> dict[str, Turn]:
    """Return what each stage may do.

    Args:
        target: The version that all should have.
        versions: That they have.
        fleet: What gateways know of the jobs; None: nobody could be asked.
    """
    found: dict[str, Turn] = {}
    behind = ""
    for index, stage in enumerate(STAGES):
        old = versions[stage].old(target)
        if not versions[stage].templates - {target} or index == 0:
            # The first needs not wait: a job that an encoder loses begins again anyway, and what
            # it has in hand it finishes.
            found[stage] = Turn(old, True)
        elif behind:
            found[stage] = Turn(old, False, f"{behind} still has the old version")
        elif fleet is None:
            found[stage] = Turn(old, False, "no gateway says which jobs have the old version")
        elif count := _users(stage, target, fleet, versions[stage], STAGES[: index + 1]):
            jobs = "a job" if count == 1 else f"{count} jobs"
            found[stage] = Turn(old, False, f"{jobs} of the old version in it or before it")
        else:
            found[stage] = Turn(old, True)
        if old and not behind:
            behind = stage
    return found


def _users(stage: str, target: str, fleet: Fleet, versions: Versions, before: Sequence[str]) -> int:
    """Return how many unfinished jobs will still need the old version of a stage."""
    connected = {worker.version for worker in fleet.workers if stage in worker.stages}
    # A gateway that has just started may not have met them yet.
    there = versions.ready | (connected - {""})
    return sum(
        count
        for (where, version), count in fleet.jobs.items()
        # With a version that no worker of the stage has they wait in vain: they begin again.
        if where in before and version != target and version in there
    )
