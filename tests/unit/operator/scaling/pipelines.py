"""A pipeline on one pool, as most tests of the balancer begin, and how its report is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from disagfusion_operator.api.status import Condition
from disagfusion_operator.scaling.report import Finding, Report

from disagfusion.scheduling.decision import Place

from .members import Member, pool, profile
from .world import World

PROFILE = profile("a", encoder=1.0, dit=6.0, decoder=1.0)
DIT = Place("dit", "a")


def spec(**scaling: Any) -> dict[str, Any]:
    return {"pools": {"a": pool("a")}, "scaling": {"budget": 8, "profile": PROFILE, **scaling}}


def steady(rate: float) -> Callable[[float], float]:
    return lambda now: rate


def started(
    rate: float = 0.5, nodes: int = 1, accelerators: int = 8, **scaling: Any
) -> tuple[World, Member]:
    world = World()
    world.add_nodes("a", nodes, accelerators)
    return world, world.add("p", spec(**scaling), steady(rate))


def shifted() -> tuple[World, Member]:
    """A pipeline whose jobs have become heavy for the decoder: some of the others have to move."""
    world, member = started(0.0)
    heavy = profile("a", encoder=1.0, dit=2.0, decoder=6.0)
    member.deployments[Place("encoder", "a")]["spec"]["replicas"] = 1
    member.deployments[DIT]["spec"]["replicas"] = 6
    member.deployments[Place("decoder", "a")]["spec"]["replicas"] = 1
    world.change(member, spec(profile=heavy))
    member.speeds = {
        Place(stage, "a"): 1.0 / seconds
        for stage, seconds in (("encoder", 1.0), ("dit", 2.0), ("decoder", 6.0))
    }
    world.tick(20.0)
    member.jobs.rate = steady(0.7)
    return world, member


def finding(report: Report, kind: Condition) -> Finding:
    return next(one for one in report.findings if one.type is kind)


def happenings(report: Report) -> list[str]:
    return [one.reason for one in report.happenings]
