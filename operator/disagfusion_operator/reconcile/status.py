"""The status of a pipeline, from what was observed and how the steps ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from disagfusion.scheduling.decision import Place
from disagfusion_operator.api.base import API_VERSION, KIND, STAGES
from disagfusion_operator.api.status import (
    ColdStart,
    Condition,
    ConditionStatus,
    DecisionStatus,
    PlaceStatus,
    StageStatus,
    Status,
)
from disagfusion_operator.desired.names import FLEX, GATEWAY, GATEWAY_PORT
from disagfusion_operator.k8s.port import Object
from disagfusion_operator.k8s.states import is_ready, text_of
from disagfusion_operator.reconcile.observe import (
    Observed,
    cold_start,
    counts,
    crew_of,
    image_of,
    is_settled,
)
from disagfusion_operator.reconcile.outcome import Kind, Outcome
from disagfusion_operator.reconcile.problems import Problem
from disagfusion_operator.scaling.report import Finding, Report

_LENGTH = 1024
_COSMETIC = ("throughput", "backlog", "bottleneck", "decision")
"""What changes all the time while a pipeline works; it is written now and then."""
_COSMETIC_SECONDS = 30.0
_BALANCING = (
    Condition.SCALING_ACTIVE,
    Condition.SCALING_LIMITED,
    Condition.METRICS_AVAILABLE,
    Condition.CONFLICT,
)


@dataclass(frozen=True, slots=True)
class Account:
    """All that a status is made of.

    Attributes:
        namespace: Of the pipeline.
        name: Of the pipeline.
        generation: Of its specification.
        observed: What there is.
        problems: What does not run.
        outcome: The worst end of a step.
        rollout: What a rollout waits for; empty: there is none.
        rolling: Whether there is a rollout.
        report: The balancer's.
        paused: Whether nothing is to change.
        draining: Why the pipeline goes; empty: it does not.
    """

    namespace: str
    name: str
    generation: int
    observed: Observed
    problems: Sequence[Problem] = ()
    outcome: Outcome = field(default_factory=Outcome)
    rollout: str = ""
    rolling: bool = False
    report: Report | None = None
    paused: bool = False
    draining: str = ""


def build(account: Account, before: Mapping[str, Any], now: str) -> Status:
    """Return the status.

    Args:
        account: What it is made of.
        before: The one that there is, as the resource has it.
        now: The time as Kubernetes writes it.
    """
    stages = _stages(account, before)
    findings = _findings(account, stages, before)
    report = account.report
    endpoint = str(before.get("endpoint", ""))
    if any(map(is_ready, account.observed.gateway_pods)):
        endpoint = f"{account.name}.{account.namespace}.svc:{GATEWAY_PORT}"
    return Status(
        observed_generation=account.generation,
        state=_state(account, {one.type: one for one in findings}),
        conditions=(
            *_conditions(findings, before, account.generation, now),
            *(() if account.draining else _kept(findings, before)),
        ),
        stages=stages,
        ratio=":".join(str(stages[stage].ready) for stage in STAGES),
        bottleneck=report.bottleneck if report else "",
        throughput=""
        if report is None or report.throughput is None
        else f"{report.throughput:.3g}",
        backlog=report.backlog if report else None,
        decision=_decision(report, before),
        cold_start=cold_start(account.observed.stage_pods, _cold_start(before)),
        endpoint=endpoint,
    )


def invalid(generation: int, message: str, before: Mapping[str, Any], now: str) -> Status:
    """Return the status of a pipeline that cannot be understood; what runs goes on as it is."""
    findings = [
        Finding(Condition.READY, False, "InvalidSpec", message),
        Finding(Condition.DEGRADED, True, "InvalidSpec", message),
        Finding(Condition.SCALING_ACTIVE, False, "InvalidSpec", message),
    ]
    names = ("stages", "ratio", "decision", "coldStart", "endpoint")
    kept = {name: value for name, value in before.items() if name in names}
    status = Status.model_validate(kept) if kept else Status()
    return status.model_copy(
        update={
            "observed_generation": generation,
            "state": "Invalid",
            "conditions": (
                *_conditions(findings, before, generation, now),
                *_kept(findings, before),
            ),
        }
    )


def manifest_of(namespace: str, name: str, uid: str, status: Status) -> Object:
    """Return what is applied to the status subresource."""
    content = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    for stage in content["stages"].values():
        if not stage["pools"]:
            # Applied as an empty object, what was in it leaves a null, which is refused.
            del stage["pools"]
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"namespace": namespace, "name": name, "uid": uid},
        "status": content,
    }


def is_news(status: Mapping[str, Any], before: Mapping[str, Any], seconds: float) -> bool:
    """Tell whether a status has to be written.

    Args:
        status: The new one, as the resource has it.
        before: The one that there is.
        seconds: Since it was written.
    """
    if seconds >= _COSMETIC_SECONDS:
        return not _same(status, before)
    return not _same(_without(status), _without(before))


def transitions(status: Status, before: Mapping[str, Any]) -> list[ConditionStatus]:
    """Return the conditions that have changed; of a new pipeline those that somebody should see."""
    known = {one["type"]: one for one in before.get("conditions") or ()}
    found = []
    for one in status.conditions:
        there = known.get(one.type)
        if there is None:
            news = one.type == Condition.DEGRADED and one.status == "True"
        else:
            # What keeps a pipeline from working may be another thing than a moment ago.
            worse = one.type == Condition.DEGRADED and one.status == "True"
            news = there["status"] != one.status or (worse and there["reason"] != one.reason)
        if news:
            found.append(one)
    return found


def _stages(account: Account, before: Mapping[str, Any]) -> dict[str, StageStatus]:
    by_place = counts(account.observed.stage_pods)
    places = {*by_place, *account.observed.deployments}
    found: dict[str, StageStatus] = {}
    for stage in STAGES:
        pools: dict[str, PlaceStatus] = {}
        for place in sorted((one for one in places if one.stage == stage), key=_order):
            pools[place.pool] = by_place.get(place, PlaceStatus()).model_copy(
                update={"desired": _desired(account, place, before)}
            )
        images = {
            image_of(one)
            for place, one in account.observed.deployments.items()
            if place.stage == stage
        }
        found[stage] = StageStatus.model_validate(
            {
                "desired": sum(one.desired for one in pools.values()),
                "ready": sum(one.ready for one in pools.values()),
                "draining": sum(one.draining for one in pools.values()),
                "image": min(images, default=""),
                "pools": pools,
            }
        )
    return found


def _order(place: Place) -> tuple[str, str]:
    return place.stage, place.pool


def _desired(account: Account, place: Place, before: Mapping[str, Any]) -> int:
    if account.report is not None and place in account.report.places:
        return account.report.places[place].desired
    deployment = account.observed.deployments.get(place)
    if deployment is None:
        return 0
    if crew_of(deployment)[0] == FLEX:
        # How many of its pods are to have which stage, only the balancer says, or has said.
        told = ((before.get("stages") or {}).get(place.stage) or {}).get("pools") or {}
        return int((told.get(place.pool) or {}).get("desired", 0))
    return int(deployment["spec"].get("replicas", 0))


def _findings(
    account: Account, stages: Mapping[str, StageStatus], before: Mapping[str, Any]
) -> list[Finding]:
    found = [
        _ready(account, stages, before),
        _progressing(account, stages),
        _degraded(account),
    ]
    if account.report is not None:
        found += account.report.findings
    return found


def _ready(
    account: Account, stages: Mapping[str, StageStatus], before: Mapping[str, Any]
) -> Finding:
    if account.draining:
        return Finding(Condition.READY, False, "Deleting", account.draining)
    if not any(map(is_ready, account.observed.gateway_pods)):
        message = f"no gateway is ready{_why(account, [GATEWAY])}"
        return Finding(Condition.READY, False, "GatewayNotReady", message)
    missing = [stage for stage in STAGES if not stages[stage].ready]
    if not missing:
        return Finding(Condition.READY, True, "Serving", "every stage has a replica that is ready")
    if _asleep(account, stages, before):
        return Finding(Condition.READY, True, "Idle", "there is no work; the next job wakes it")
    message = f"no replica of {' and '.join(missing)} is ready{_why(account, missing)}"
    return Finding(Condition.READY, False, "StagesNotReady", message)


def _why(account: Account, components: Sequence[str]) -> str:
    """Return what keeps these from becoming ready, serious or not, to be added to a sentence."""
    found = [str(one) for one in account.problems if one.component in components]
    return f" ({found[0]})" if found else ""


def _asleep(account: Account, stages: Mapping[str, StageStatus], before: Mapping[str, Any]) -> bool:
    """Tell whether all stages are meant to have no replicas; for want of room, none is."""
    if any(stages[stage].desired for stage in STAGES):
        return False
    if account.report is None or not account.report.places:
        return bool(before.get("state") == "Idle")
    return account.report.asleep


def _progressing(account: Account, stages: Mapping[str, StageStatus]) -> Finding:
    if account.draining:
        return Finding(Condition.PROGRESSING, True, "Deleting", account.draining)
    if account.outcome.kind is Kind.WAITS:
        return Finding(Condition.PROGRESSING, True, account.outcome.reason, account.outcome.message)
    if account.rolling:
        message = account.rollout or "pods get the new version"
        return Finding(Condition.PROGRESSING, True, "RollingOut", message)
    moving = [
        stage
        for stage in STAGES
        if stages[stage].ready != stages[stage].desired or stages[stage].draining
    ]
    if moving:
        message = f"replicas of {' and '.join(moving)} start or end"
        return Finding(Condition.PROGRESSING, True, "Scaling", message)
    unsettled = [
        one["metadata"]["name"] for one in account.observed.all_deployments if not is_settled(one)
    ]
    if unsettled:
        message = f"pods of {', '.join(sorted(unsettled))} are replaced"
        return Finding(Condition.PROGRESSING, True, "Updating", message)
    return Finding(Condition.PROGRESSING, False, "Settled", "everything is as it should be")


def _degraded(account: Account) -> Finding:
    if account.outcome.kind is Kind.FAILED:
        return Finding(Condition.DEGRADED, True, account.outcome.reason, account.outcome.message)
    serious = [one for one in account.problems if one.serious]
    if serious:
        message = "; ".join(map(str, serious))
        return Finding(Condition.DEGRADED, True, serious[0].reason, message[:_LENGTH])
    return Finding(Condition.DEGRADED, False, "AsExpected", "")


def _conditions(
    findings: Sequence[Finding], before: Mapping[str, Any], generation: int, now: str
) -> tuple[ConditionStatus, ...]:
    known = {one["type"]: one for one in before.get("conditions") or ()}
    found = []
    for one in findings:
        status = "Unknown" if one.holds is None else str(one.holds)
        there = known.get(one.type.value)
        same = there is not None and there["status"] == status
        found.append(
            ConditionStatus.model_validate(
                {
                    "type": one.type.value,
                    "status": status,
                    "reason": one.reason,
                    "message": one.message[:_LENGTH],
                    "observed_generation": generation,
                    "last_transition_time": there["lastTransitionTime"] if same and there else now,
                }
            )
        )
    return tuple(found)


def _kept(findings: Sequence[Finding], before: Mapping[str, Any]) -> tuple[ConditionStatus, ...]:
    """Return the conditions of the balancer's as they were, where it says nothing now.

    Nobody knows better while an operator that has just started finds out what there is.
    """
    told = {one.type.value for one in findings}
    return tuple(
        ConditionStatus.model_validate(one)
        for one in before.get("conditions") or ()
        if one["type"] in _BALANCING and one["type"] not in told
    )


def _state(account: Account, found: Mapping[Condition, Finding]) -> str:
    if account.draining:
        return "Draining"
    if found[Condition.DEGRADED].holds:
        return "Degraded"
    if found[Condition.READY].holds:
        if found[Condition.READY].reason == "Idle":
            return "Idle"
        return "Paused" if account.paused else "Ready"
    return "Loading" if account.observed.stage_pods else "Pending"


def _decision(report: Report | None, before: Mapping[str, Any]) -> DecisionStatus | None:
    if report is None or report.choice is None:
        last = before.get("decision")
        return None if last is None else DecisionStatus.model_validate(last)
    choice = report.choice
    return DecisionStatus(
        time=text_of(choice.time), reason=choice.reason, message=choice.message[:_LENGTH]
    )


def _cold_start(before: Mapping[str, Any]) -> ColdStart | None:
    last = before.get("coldStart")
    return None if last is None else ColdStart.model_validate(last)


def _without(status: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in status.items() if name not in _COSMETIC}


def _same(status: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    def plain(values: Any) -> Any:
        if isinstance(values, Mapping):
            kept = {name: plain(value) for name, value in values.items()}
            return {name: value for name, value in kept.items() if value not in ({}, [], "", None)}
        if isinstance(values, (list, tuple)):
            return [plain(value) for value in values]
        return values

    return bool(plain(status) == plain(before))
