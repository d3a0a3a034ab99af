"""All that decides what a pipeline is made of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import Shape
from disagfusion_operator.api.base import API_VERSION, KIND
from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.api.stages import Stage

Manifest = dict[str, Any]

_LEAST_GRACE = 60
_GREATEST_GRACE = 3600
_UNKNOWN_JOB_SECONDS = 300.0
_RELEASE_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Release:
    """What the operator's installation decides for all pipelines.

    Attributes:
        images: By stage, "gateway", "flex" and "emulated".
        pull_policy: Of all containers.
        pull_secrets: Names of Secrets for the images' registry.
        namespace: Of the operator itself.
        prometheus_namespace: Whose pods may read metrics; everybody where empty.
        client_namespaces: Labels of the namespaces whose pods may reach gateways; everybody where
            empty.
        network_policies: Whether network policies are made.
        pod_monitors: Whether PodMonitors are made.
    """

    images: Mapping[str, str]
    pull_policy: str = "IfNotPresent"
    pull_secrets: tuple[str, ...] = ()
    namespace: str = "default"
    prometheus_namespace: str = ""
    client_namespaces: Mapping[str, str] = field(default_factory=dict)
    network_policies: bool = True
    pod_monitors: bool = False


@dataclass(frozen=True, slots=True)
class Inputs:
    """A pipeline and everything outside of it that its objects depend on.

    Attributes:
        namespace: Of the pipeline.
        name: Of the pipeline.
        uid: Of the pipeline.
        spec: What people wrote.
        release: What the installation decides.
        profile: What stages cost, where that is known.
        profile_text: The profile as YAML or JSON; empty without one.
        whole: Stages whose pods may all be replaced at a time: nobody needs the old ones any more.
    """

    namespace: str
    name: str
    uid: str
    spec: Spec
    release: Release
    profile: Profile | None = None
    profile_text: str = ""
    whole: frozenset[str] = frozenset()

    @property
    def emulated(self) -> bool:
        """Whether there is no model."""
        return self.spec.model.emulated is not None

    def stage(self, name: str) -> Stage:
        """Return a stage's specification."""
        return dict(self.spec.stages.items())[name]

    def image(self, stage: str) -> str:
        """Return the image of a stage's pods."""
        kind = "emulated" if self.emulated else stage
        return self.stage(stage).image or self.release.images[kind]

    def flex_image(self, pool: str) -> str:
        """Return the image of the pods of a pool that change their stage in place."""
        flex = self.spec.pools[pool].flex
        kind = "emulated" if self.emulated else "flex"
        return (flex.image if flex else None) or self.release.images[kind]

    @property
    def gateway_image(self) -> str:
        """The image of the gateways' pods."""
        return self.spec.gateway.image or self.release.images["gateway"]

    @property
    def version(self) -> str:
        """What no job may meet two of: the model, how it is loaded, and the images."""
        model = self.spec.model.model_dump(mode="json", exclude={"cache"})
        told = {
            "model": model,
            "dtype": self.spec.dtype,
            "options": self.spec.options.model_dump(mode="json"),
            "images": self._images(),
            "profile": self.profile_text if self.emulated else "",
        }
        text = json.dumps(told, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def _images(self) -> list[str]:
        """Return the images of all pods that do the work of stages."""
        own = {
            stage: self.image(stage)
            for stage, pool in self.spec.places()
            if not self.spec.flexes(pool)
        }
        flex = {self.flex_image(pool) for pool in self.spec.pools if self.spec.flexes(pool)}
        return [*own.values(), *sorted(flex)]

    def job_seconds(self, stage: str, pool: str) -> float:
        """Predict how long the longest job takes there."""
        scale = self.spec.model.emulated.time_scale if self.spec.model.emulated else 1.0
        if self.profile is None or stage not in self.profile.stages:
            return _UNKNOWN_JOB_SECONDS
        costs = self.profile.stages[stage].pools
        # A pool that the profile does not know is taken to be as slow as the slowest.
        known = [costs[pool]] if pool in costs else list(costs.values())
        return scale * max(one.seconds_of(Shape()) * one.p95_ratio for one in known)

    def load_seconds(self, stage: str, pool: str) -> float:
        """Predict how long a replica takes from its start until it can work; 0: not known."""
        scale = self.spec.model.emulated.time_scale if self.spec.model.emulated else 1.0
        if self.profile is None or stage not in self.profile.stages:
            return 0.0
        pools = [pool] if pool in self.profile.pools else list(self.profile.pools)
        return scale * max(self.profile.load_seconds(stage, one) for one in pools)

    def grace_seconds(self, jobs: float, release: int) -> int:
        """Return how long a pod may take to finish what it has.

        Args:
            jobs: Seconds of the jobs that it can have.
            release: Seconds that its outputs may wait.
        """
        # Requests may be larger than the profile's default shape.
        needed = 2 * jobs + release + _RELEASE_SECONDS
        return min(_GREATEST_GRACE, rounded(max(_LEAST_GRACE, needed)))

    def release_seconds(self, stage: str, pool: str) -> int:
        """Return how long a pod waits at its end for its outputs to be taken."""
        stages = [name for name, _ in self.spec.stages.items()]
        following = stages[stages.index(stage) + 1 :][:1]
        longest = max((self.job_seconds(one, pool) for one in following), default=0.0)
        return min(_GREATEST_GRACE // 4, rounded(_RELEASE_SECONDS + 2 * longest))


def rounded(seconds: float) -> int:
    """Return seconds rounded up in large steps: a slightly other profile replaces no pods."""
    found = _LEAST_GRACE // 2
    while found < seconds:
        found *= 2
    return found


def owner_reference(inputs: Inputs) -> Manifest:
    """Return what makes an object go with its pipeline."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "name": inputs.name,
        "uid": inputs.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def manifest(
    inputs: Inputs,
    kind: tuple[str, str],
    name: str,
    labels: Mapping[str, str],
    *,
    owned: bool = True,
    **content: Any,
) -> Manifest:
    """Return an object of a pipeline."""
    metadata: Manifest = {
        "namespace": inputs.namespace,
        "name": name,
        "labels": dict(labels),
    }
    if owned:
        metadata["ownerReferences"] = [owner_reference(inputs)]
    return {"apiVersion": kind[0], "kind": kind[1], "metadata": metadata, **content}
