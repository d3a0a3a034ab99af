"""Has pods change their stage in place: first their label, then what their workers serve.

The label is what a pod is to be. It comes first, with a mark that stays until the worker serves
that stage; whoever comes next finds the mark and goes on. A container that is started again
begins with the label.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from disagfusion.errors import DisagfusionError, NotFoundError, UnavailableError
from disagfusion.rpc.tls import TlsSettings
from disagfusion.scheduling.decision import Place
from disagfusion.telemetry.logging import get_logger
from disagfusion_operator.desired.names import (
    CHANGED_ANNOTATION,
    CHANGING_ANNOTATION,
    FLEX,
    STAGE_LABEL,
)
from disagfusion_operator.k8s.kinds import POD
from disagfusion_operator.k8s.port import Cluster
from disagfusion_operator.scaling.fleet import DELETION_COST, Account, Phase, Pod
from disagfusion_operator.scaling.flex import choose, exchange, mine
from disagfusion_operator.scaling.report import Happening
from disagfusion_operator.scaling.trials import Trials
from disagfusion_operator.scaling.workers import Workers

_ANSWER_SECONDS = 2.0

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Written:
    """What was written on a pod.

    Attributes:
        stage: Its label.
        changes_from: Its mark; None: it has none.
        changed_at: When its stage was changed last, in Unix seconds.
        version: Of the pod since.
    """

    stage: str
    changes_from: str | None
    changed_at: float | None
    version: int


@dataclass(slots=True)
class Changes:
    """Of one pipeline's pods.

    Attributes:
        cluster: Where labels are written.
        workers: Are told.
        namespace: Of the pipeline.
        measured: Told of a place and the seconds from a label to a worker that serves there.
        written: By uid, what caches may not have seen yet.
        failures: Why pods could not be written, until somebody forgets it; after one that says that
            the API server is away it is not asked again.
    """

    cluster: Cluster
    workers: Workers
    namespace: str
    measured: Callable[[Place, float], None]
    written: dict[str, Written] = field(default_factory=dict)
    failures: list[DisagfusionError] = field(default_factory=list)
    _trials: Trials = field(default_factory=Trials)
    _worked: set[str] = field(default_factory=set)
    _finished: dict[str, float] = field(default_factory=dict)

    def current(self, pods: Iterable[Pod]) -> list[Pod]:
        """Return pods as they were written last, where the caches have not seen it yet."""
        found = []
        for pod in pods:
            last = self.written.get(pod.uid)
            if last is not None and pod.version < last.version:
                phase = pod.phase
                if last.changes_from is not None and phase is Phase.READY:
                    phase = Phase.STARTING
                place = Place(last.stage, pod.place.pool)
                pod = replace(
                    *(pod,), place=place, phase=phase, cost=None,
                    changes_from=last.changes_from, changed_at=last.changed_at,
                )  # fmt: skip
            else:
                self.written.pop(pod.uid, None)
            found.append(pod)
        return found

    def keep(self, uids: set[str]) -> None:
        """Remember nothing of pods that are gone."""
        self.written = {uid: one for uid, one in self.written.items() if uid in uids}
        self._trials.keep(uids)
        self._worked &= uids
        self._finished = {uid: at for uid, at in self._finished.items() if uid in uids}

    async def exchange(
        self,
        places: Sequence[Place],
        accounts: Mapping[Place, Account],
        keep: Mapping[Place, int],
        wanted: Mapping[Place, int],
        remaining: Callable[[], Awaitable[Mapping[str, float]]],
        now: float,
        *,
        starting: bool = False,
    ) -> int:
        """Give pods of stages that have too many to those that have too few.

        Args:
            places: Between which pods change.
            accounts: By place; pods of these pools at other places change as well.
            keep: Replicas that may not be less for the moment.
            wanted: Replicas that there should be.
            remaining: Returns the seconds that pods will still compute; idle ones are left out.
            now: Unix seconds.
            starting: Whether only pods change that do not work yet.

        Returns:
            How many were.
        """
        pods = [pod for place in places for pod in accounts[place].live]
        lost = [
            pod
            for place, account in accounts.items()
            if place not in places and place.pool == places[0].pool
            for pod in account.live
            if pod.crew == FLEX
        ]
        live = {place: len(accounts[place].live) for place in places}
        for pod in lost:
            live[pod.place] = live.get(pod.place, 0) + 1
        spare, targets = exchange(live, mine(places, keep), mine(places, wanted))
        able = [pod for pod in (*pods, *lost) if spare.get(pod.place)]
        if not targets or not able:
            return 0
        idle = starting or all(pod.phase is Phase.STARTING for pod in able)
        seconds = {} if idle else await remaining()
        # What does not work yet, then what is idle, then what will have done soonest, then what
        # will never work as it is; of those that are alike the youngest.
        able.sort(
            key=lambda pod: (
                *(pod.failing, pod.phase is Phase.READY, seconds.get(pod.name, -1.0)),
                *(-pod.created, pod.name),
            )
        )
        # A stage that keeps pods does not keep such alone that will never work.
        stays = {pod.place: pod.name for pod in able if keep.get(pod.place) and not pod.failing}
        able = [
            pod
            for pod in able
            if stays.get(pod.place) != pod.name and not (starting and pod.phase is Phase.READY)
        ]
        by_name = {pod.name: pod for pod in able}
        chosen = choose([(pod.place, pod.name) for pod in able], spare)
        changed = 0
        for name, target in zip(chosen, targets, strict=False):
            changed += await self._label(by_name[name], target, now)
        return changed

    async def doubt(self, pods: Iterable[Pod], served: Mapping[str, str], at: float) -> int:
        """Mark pods whose workers serve another stage than their labels say.

        People may have written another label, or a container may have started with an old one.

        Args:
            pods: Of these pools.
            served: Pod → stage, as gateways say it.
            at: When they said it, in Unix seconds.

        Returns:
            How many were.
        """
        wrong = [
            pod
            for pod in pods
            if pod.phase is Phase.READY
            and served.get(pod.name, pod.place.stage) != pod.place.stage
            and max(pod.begun, self._finished.get(pod.uid, 0.0)) < at
        ]
        marked = 0
        for pod in wrong:
            before = served[pod.name]
            stage, marks = pod.place.stage, {CHANGING_ANNOTATION: before}
            if await self._write(pod, {}, marks, stage, before, pod.changed_at):
                _log.warning("another stage than its label's", pod=pod.name, stage=before)
                marked += 1
        return marked

    async def tell(
        self, pods: Iterable[Pod], tls: TlsSettings | None, now: float
    ) -> list[Happening]:
        """Have workers serve what their pods' labels say, where that has not been seen yet.

        One that does not answer or refuses goes on with what it has, and is told again.

        Args:
            pods: All that do not terminate.
            tls: Of the workers' ports.
            now: Unix seconds.

        Returns:
            Who has not changed for long.
        """
        asked = [
            pod
            for pod in pods
            if pod.changes_from is not None and pod.address and self._trials.due(pod, now)
        ]
        answers = await asyncio.gather(*(self._tell(pod, tls) for pod in asked))
        happened = []
        for pod, answer in zip(asked, answers, strict=True):
            if answer is True:
                await self._finish(pod, now)
            elif (news := self._trials.enter(pod, answer or None, now)) is not None:
                happened.append(news)
        return happened

    async def _tell(self, pod: Pod, tls: TlsSettings | None) -> bool | DisagfusionError:
        """Return whether a pod's worker serves its stage, or why it does not change."""
        try:
            return await self.workers.change(
                pod.address, pod.name, pod.place.stage, tls, _ANSWER_SECONDS
            )
        except DisagfusionError as error:
            _log.info("stage not changed yet", pod=pod.name, problem=error.message)
            return error

    async def _label(self, pod: Pod, target: Place, now: float) -> bool:
        before = pod.place.stage
        marks = {
            CHANGED_ANNOTATION: f"{now:.3f}",
            CHANGING_ANNOTATION: before,
            DELETION_COST: None,
        }
        if pod.phase is Phase.READY:
            self._worked.add(pod.uid)
        else:
            self._worked.discard(pod.uid)
        labels = {STAGE_LABEL: target.stage}
        if not await self._write(pod, labels, marks, target.stage, before, now):
            return False
        _log.info("stage changes", pod=pod.name, before=before, stage=target.stage)
        return True

    async def _finish(self, pod: Pod, now: float) -> None:
        stage, marks = pod.place.stage, {CHANGING_ANNOTATION: None}
        if await self._write(pod, {}, marks, stage, None, pod.changed_at):
            self._finished[pod.uid] = now
            self._trials.forget(pod)
            _log.info("stage changed", pod=pod.name, stage=stage)
            worked = pod.uid in self._worked
            self._worked.discard(pod.uid)
            if worked and pod.changed_at is not None:
                self.measured(pod.place, max(0.0, now - pod.changed_at))

    async def _write(
        self,
        pod: Pod,
        labels: Mapping[str, str],
        marks: Mapping[str, str | None],
        stage: str,
        changes_from: str | None,
        changed_at: float | None,
    ) -> bool:
        if any(isinstance(one, UnavailableError) for one in self.failures):
            return False
        try:
            answer = await self.cluster.relabel(POD, self.namespace, pod.name, labels, marks)
        except NotFoundError:
            return False  # it went by itself
        except DisagfusionError as error:
            self.failures.append(error)
            return False
        version = answer["metadata"].get("resourceVersion", "")
        if version.isdigit():
            self.written[pod.uid] = Written(stage, changes_from, changed_at, int(version))
        return True
