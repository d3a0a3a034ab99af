"""One calibration in a process of its own: `python -m disagfusion.balancing.replay`.

Reads a `ReplayRequest` from standard input and writes a `ReplayAnswer` to standard output, one JSON
document each. Where the request is wrong it writes a sentence to standard error and exits with 2.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field

from disagfusion.errors import DisagfusionError
from disagfusion.scheduling.balancer.settings import BalancerSettings
from disagfusion.scheduling.decision import Place
from disagfusion.scheduling.document import Count, Document, Name, NonNegative, PositiveCount
from disagfusion.scheduling.performance.documents import from_json, to_json
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import Shape
from disagfusion.simulation.calibration import BOUNDS, Trace, calibrate


class ReplayRequest(Document):
    """What a calibration needs.

    Attributes:
        kind: Tells this document from others.
        format: Of this document.
        jobs: (seconds, shape) as they came, oldest first.
        initial: Stage → pool → replicas when the first of them came.
        profile: What stages cost, as far as is known.
        settings: In use.
        fixed: Parameters that stay as they are.
        budget: Accelerators in all.
        gain: Share by which a set of parameters must be better.
    """

    kind: Literal["disagfusion.dev/replay-request"] = "disagfusion.dev/replay-request"
    format: Literal[1] = 1
    jobs: Annotated[tuple[tuple[float, Shape], ...], Field(min_length=1)]
    initial: dict[Name, dict[Name, Count]]
    profile: Profile
    settings: BalancerSettings
    fixed: tuple[str, ...] = ()
    budget: PositiveCount
    gain: float

    @classmethod
    def of(
        cls,
        trace: Trace,
        profile: Profile,
        settings: BalancerSettings,
        fixed: Collection[str],
        budget: int,
        gain: float,
    ) -> ReplayRequest:
        """Make the document of the arguments of `calibrate`."""
        initial: dict[str, dict[str, int]] = {}
        for place, count in trace.initial.items():
            if place.pool in profile.stages[place.stage].pools:
                initial.setdefault(place.stage, {})[place.pool] = count
        return cls(
            jobs=trace.jobs,
            initial=initial,
            profile=profile,
            settings=settings,
            fixed=tuple(fixed),
            budget=budget,
            gain=gain,
        )

    def answer(self) -> ReplayAnswer:
        """Replay the jobs."""
        initial = {
            Place(stage, pool): count
            for stage, pools in self.initial.items()
            for pool, count in pools.items()
        }
        found = calibrate(
            self.jobs,
            initial,
            self.profile,
            self.settings,
            self.budget,
            self.gain,
            fixed=self.fixed,
        )
        changed = {
            name: getattr(found.settings, name)
            for name in BOUNDS
            if getattr(found.settings, name) != getattr(self.settings, name)
        }
        return ReplayAnswer(parameters=changed, gain=found.gain, message=found.message)


class ReplayAnswer(Document):
    """What came of a calibration.

    Attributes:
        kind: Tells this document from others.
        format: Of this document.
        parameters: What is to be changed; empty where nothing is clearly better.
        gain: Share by which it is better.
        message: For people.
    """

    kind: Literal["disagfusion.dev/replay-answer"] = "disagfusion.dev/replay-answer"
    format: Literal[1] = 1
    parameters: dict[str, NonNegative] = Field(default_factory=dict)
    gain: float = 0.0
    message: str


def main() -> int:
    """Answer one request."""
    try:
        request = from_json(ReplayRequest, sys.stdin.buffer.read(), name="request")
        answer = request.answer()
    except DisagfusionError as error:
        print(error.message, file=sys.stderr)
        return 2
    print(to_json(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
