"""How workers answered that were told to change their stage: whom to tell again, what to say. Pure.

One that cannot be reached costs the time that an answer may take, so it is told ever less often.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from disagfusion.errors import DeadlineExceededError, DisagfusionError, UnavailableError
from disagfusion_operator.scaling.fleet import Pod
from disagfusion_operator.scaling.report import Happening

_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
_PATIENCE = 60.0
"""Seconds after which it is told that a worker refuses or does not answer."""
_LONG_PATIENCE = 600.0
"""The same of one that has agreed: it finishes jobs, then it loads weights."""


@dataclass(slots=True)
class _Trial:
    """Of one change of one pod.

    Attributes:
        change: The stage, the one before it, and when the pod got it.
        since: When its worker was told first, in Unix seconds.
        version: Of the pod when its worker was told last.
        pause: Seconds until it is told again; 0: at the next look.
        again_at: Unix seconds.
        refused: Why it does not change; empty where it has agreed.
        happened: Whether that has been told.
    """

    change: tuple[str, str | None, float | None]
    since: float
    version: int
    pause: float = 0.0
    again_at: float = 0.0
    refused: str = ""
    happened: bool = False


@dataclass(slots=True)
class Trials:
    """Of one pipeline's pods."""

    _trials: dict[str, _Trial] = field(default_factory=dict)

    def keep(self, uids: Collection[str]) -> None:
        """Remember nothing of pods that are gone."""
        self._trials = {uid: one for uid, one in self._trials.items() if uid in uids}

    def forget(self, pod: Pod) -> None:
        """Remember nothing of a pod that has changed."""
        self._trials.pop(pod.uid, None)

    def due(self, pod: Pod, now: float) -> bool:
        """Tell whether a pod's worker is to be told now.

        Args:
            pod: Has an address and a mark.
            now: Unix seconds.
        """
        trial = self._trials.get(pod.uid)
        # A pod that has become another, such as a ready one, may be reached.
        return trial is None or trial.version != pod.version or now >= trial.again_at

    def enter(self, pod: Pod, error: DisagfusionError | None, now: float) -> Happening | None:
        """Take note of what a worker said that does not serve its stage yet.

        Args:
            pod: Whose it is.
            error: Why it does not change; None: it has agreed.
            now: When it was told, in Unix seconds.

        Returns:
            What there is to tell, once for each change.
        """
        trial = self._trials.get(pod.uid)
        change = (pod.place.stage, pod.changes_from, pod.changed_at)
        if trial is None or trial.change != change:
            trial = self._trials[pod.uid] = _Trial(change, now, pod.version)
        away = isinstance(error, UnavailableError | DeadlineExceededError)
        again = trial.pause * 2.0 if trial.version == pod.version else 0.0
        trial.pause = min(_LONGEST_PAUSE, max(_FIRST_PAUSE, again)) if away else 0.0
        trial.version, trial.again_at = pod.version, now + trial.pause
        trial.refused = "" if error is None else error.message or error.reason
        waited = now - trial.since
        if trial.happened or waited < (_PATIENCE if trial.refused else _LONG_PATIENCE):
            return None
        trial.happened = True
        answer = trial.refused or "it has agreed, and does not serve it yet"
        return Happening(
            "StageNotChanged",
            f"pod {pod.name} is to change from {pod.changes_from} to {pod.place.stage}"
            f" and has not for {waited:.0f} s: {answer}",
            "ChangeStage",
            warning=True,
        )
