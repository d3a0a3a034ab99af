"""How long things take in the simulated world, which need not be as the profile says."""

from __future__ import annotations

from disagfusion.scheduling.decision import Place
from disagfusion.scheduling.profile import Profile
from disagfusion.simulation.workload import Throttle, Workload

_MIB_PER_GIB = 1024


class Services:
    """Service, transfer and start-up times.

    Args:
        profile: What is expected.
        workload: In what the world differs.
    """

    def __init__(self, profile: Profile, workload: Workload) -> None:
        self._profile = profile
        self._workload = workload
        self._expected: dict[tuple[Place, str], float] = {}
        self._outputs: dict[tuple[str, str], float] = {}

    def expected(self, place: Place, shape: str) -> float:
        """Return the seconds that the profile says."""
        seconds = self._expected.get((place, shape))
        if seconds is None:
            cost = self._profile.stages[place.stage].pools[place.pool]
            seconds = cost.seconds_of(self._workload.shapes[shape])
            self._expected[place, shape] = seconds
        return seconds

    def end(self, place: Place, shape: str, deviation: float, begin: float) -> float:
        """Return when a job that begins now will have been served."""
        work = self.expected(place, shape) * deviation
        for throttle in self._workload.throttles:
            if _concerns(throttle, place):
                work, begin = _until(throttle.start, work, begin, 1.0)
                end = float("inf") if throttle.end is None else throttle.end
                work, begin = _until(end, work, begin, throttle.speed)
        return begin + work

    def transfer_seconds(self, stage: str, shape: str, source: str, target: str) -> float:
        """Return how long a stage's output takes from one pool to another."""
        if not self._workload.transfers:
            return 0.0
        mib = self._outputs.get((stage, shape))
        if mib is None:
            mib = self._profile.stages[stage].output_of(self._workload.shapes[shape])
            self._outputs[stage, shape] = mib
        links = [self._profile.pools[pool].link_gib_per_second for pool in (source, target)]
        slowest = min((link for link in links if link is not None), default=None)
        return mib / _MIB_PER_GIB / slowest if slowest else 0.0

    def rebind_seconds(self, place: Place) -> float:
        """Return how long a replica takes to get ready."""
        given = self._fixed(place)
        return self._profile.load_seconds(place.stage, place.pool) if given is None else given

    def loads_ahead(self, place: Place) -> bool:
        """Whether a replica that changes to a place loads its weights while it finishes its jobs.

        Not where the workload fixes the seconds: they count from the end of the last job.
        """
        return self._fixed(place) is None and self._profile.pools[place.pool].load_ahead

    def _fixed(self, place: Place) -> float | None:
        given = self._workload.rebind_seconds
        return given.get(place.stage) if isinstance(given, dict) else given


def _concerns(throttle: Throttle, place: Place) -> bool:
    return throttle.pool in (None, place.pool) and throttle.stage in (None, place.stage)


def _until(end: float, work: float, begin: float, speed: float) -> tuple[float, float]:
    """Work at a speed until a time; return the work that is left and when it goes on."""
    done = min(work, max(0.0, end - begin) * speed)
    return work - done, begin + done / speed
