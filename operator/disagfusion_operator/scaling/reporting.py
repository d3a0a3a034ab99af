"""What a step comes to, for status, conditions, events and metrics."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from disagfusion.scheduling.decision import Decision, Place, Reason
from disagfusion.scheduling.observation import Fresh
from disagfusion_operator.desired.names import gateway_deployment
from disagfusion_operator.scaling import findings
from disagfusion_operator.scaling.conflict import scalers
from disagfusion_operator.scaling.ledger import Ledger
from disagfusion_operator.scaling.mind import Mind
from disagfusion_operator.scaling.moment import Moment
from disagfusion_operator.scaling.report import Choice, Happening, PlaceReport, Report
from disagfusion_operator.scaling.table import Claim, served


def place_reports(moment: Moment, desired: Mapping[Place, int]) -> dict[Place, PlaceReport]:
    """Return the replicas of every place."""
    found = {}
    for place, seat in moment.claim.seats.items():
        account, wanted = moment.account(place), desired.get(place, 0)
        found[place] = PlaceReport(
            desired=wanted,
            ready=account.ready,
            starting=len(account.live) - account.ready,
            waiting=max(0, wanted - len(account.live)),
            draining=len(account.leaving),
            accelerators=seat.accelerators,
        )
    return found


def report(
    moment: Moment,
    mind: Mind,
    ledger: Ledger,
    desired: Mapping[Place, int],
    choice: Choice | None,
    happened: tuple[Happening, ...],
    failure: str,
    again_after: float,
) -> Report:
    """Return the report of a step.

    Args:
        moment: Of the step.
        mind: Of the pipeline.
        ledger: Of all pools.
        desired: Replicas there should be.
        choice: The last decision that is worth telling.
        happened: Since the last step.
        failure: Why something could not be carried out; empty: it could.
        again_after: Seconds.
    """
    places = place_reports(moment, desired)
    mode = moment.spec.scaling.mode
    seen = mind.seen
    observation = None if seen is None or mode == "Off" else seen.observation
    full = {
        place.pool: found.message
        for place, seat in moment.claim.seats.items()
        if (found := ledger.full(moment.view.key, seat.pool, moment.now)) is not None
    }
    decision = mind.decision
    active = findings.scaling_active(mode, mind.problem, failure, decision)
    if mind.knowledge.lacking and mode == "Auto" and not mind.problem and not failure:
        active = findings.learning(mind.knowledge.lacking)
    readings = mind.readings
    completed = None if readings is None else readings.completed[moment.claim.stages[-1]]
    return Report(
        places=places,
        findings=(
            active,
            findings.scaling_limited(
                *(decision, full, () if mind.asleep else _lacking(moment, places, ledger)),
                _endless(moment),
            ),
            findings.metrics_available(observation),
            findings.conflict(moment.fixed, *_of_gateway(moment)),
        ),
        happenings=happened,
        choice=choice,
        bottleneck=_bottleneck(moment),
        throughput=completed.value if isinstance(completed, Fresh) else None,
        backlog=None
        if observation is None or not isinstance(observation.jobs, Fresh)
        else sum(one.count for one in observation.jobs.value),
        settled=all(
            one.desired == one.ready == moment.account(place).asked
            and not (one.starting or one.draining)
            for place, one in places.items()
        ),
        again_after=again_after,
        budget=sum(moment.usable().values())
        if moment.bounds.budget is None
        else moment.bounds.budget,
        usable=moment.usable(),
        asleep=moment.auto and (bool(mind.asleep) or _rests(moment, mind)),
    )


def _rests(moment: Moment, mind: Mind) -> bool:
    """Tell whether stages need not be there, and have nothing to do."""
    return not any(moment.claim.least.values()) and not any(mind.need.values())


def _endless(moment: Moment) -> list[str]:
    """Return the pools that others bring nodes to, and of which nobody says how many."""
    if moment.bounds.budget is not None:
        return []
    return [
        name
        for name, pool in moment.spec.pools.items()
        if pool.provisioning == "Autoscaled" and pool.capacity is None
    ]


def _of_gateway(moment: Moment) -> tuple[str, bool]:
    """Return what else scales the gateways, if anything, and whether it may."""
    autoscalers, gateway = moment.view.autoscalers, moment.spec.gateway
    who = scalers(autoscalers).get(gateway_deployment(moment.view.key.name), "")
    return who, gateway.store.sqlite is None


def _lacking(moment: Moment, places: Mapping[Place, PlaceReport], ledger: Ledger) -> list[str]:
    """Return the stages with fewer replicas than there should be, for want of room."""
    claim = moment.claim
    room_comes = any(
        ledger.making_room(seat.pool, moment.account(place), moment.now)
        for place, seat in claim.seats.items()
    )
    found = []
    for stage in claim.stages:
        desired = sum(one.desired for place, one in places.items() if place.stage == stage)
        asked = sum(moment.account(place).asked for place in places if place.stage == stage)
        waits = desired > asked and not room_comes
        if desired < claim.least[stage] or (waits and moment.auto):
            found.append(stage)
    return found


def _bottleneck(moment: Moment) -> str:
    """Return the stage that can do least of what has to be done."""
    claim = moment.claim
    if not any(claim.need.values()):
        return ""
    counts = {place: moment.account(place).ready for place in moment.places}
    parts = {}
    for stage in claim.stages:
        alone = Claim(
            claim.key, 0, claim.seats, {stage: 0}, {}, {stage: claim.need.get(stage, 0.0)}
        )
        parts[stage] = served(alone, counts)
    return min(parts, key=lambda stage: parts[stage])


def choice_of(
    decision: Decision, last: Decision | None, before: Choice | None, now: float
) -> Choice:
    """Return the decision to tell: a new one where it changes something or has another reason.

    Args:
        decision: The new one.
        last: The one before it; None where that was carried out.
        before: What was told.
        now: Unix seconds.
    """
    reason = findings.named(decision.reason)
    if before is not None and before.reason == reason and _same(decision, last):
        return before
    return Choice(now, reason, described(decision))


def _same(decision: Decision, last: Decision | None) -> bool:
    """Whether a decision changes nothing, or gives the advice again that nobody has followed."""
    return not decision.moves or (last is not None and decision.moves == last.moves)


def happening_of(decision: Decision, last: Decision | None, mode: str) -> Happening | None:
    """Return the event of a decision that changes something.

    Args:
        decision: The new one.
        last: The one before it; None where that was carried out.
        mode: Of the pipeline.
    """
    if _same(decision, last):
        return None
    expired = decision.reason is Reason.PENDING_EXPIRED
    action = "Scale" if mode == "Auto" else "Recommend"
    return Happening(findings.named(decision.reason), described(decision), action, warning=expired)


def described(decision: Decision) -> str:
    """Return a decision for people."""
    moves = [
        f"{move.count} from {_at(move.source)} to {_at(move.target)}"
        if move.source and move.target
        else f"{move.count} more for {_at(move.target)}"
        if move.target
        else f"{move.count} fewer for {_at(move.source)}"
        for move in decision.moves
    ]
    return "; ".join(filter(None, [", ".join(moves), decision.message or decision.reason.value]))


def _at(place: Place | None) -> str:
    return "" if place is None else f"{place.stage} on {place.pool}"


def changes(before: Mapping[Place, int], after: Mapping[Place, int]) -> str:
    """Return what changed for people."""
    return ", ".join(
        f"{_at(place)} {before.get(place, 0)} → {after.get(place, 0)}"
        for place in dict.fromkeys((*before, *after))
        if before.get(place, 0) != after.get(place, 0)
    )


def at_least(
    claim: Claim,
    counts: Mapping[Place, int],
    minima: Mapping[Place, int],
    fixed: Collection[Place] = (),
) -> dict[Place, int]:
    """Return counts with what stages lack of their minima, where these belong.

    Args:
        claim: Bounds of the pipeline.
        counts: By place.
        minima: The same, as the minima of all stages are to be had.
        fixed: Places that somebody else scales: they stay as they are.
    """
    found = {place: counts.get(place, 0) for place in claim.seats}
    for stage in claim.stages:
        mine = [place for place in found if place.stage == stage]
        lacking = claim.least[stage] - sum(found[place] for place in mine)
        for place in (one for one in mine if one not in fixed):
            more = min(max(0, lacking), max(0, minima.get(place, 0) - found[place]))
            found[place] += more
            lacking -= more
    return found
