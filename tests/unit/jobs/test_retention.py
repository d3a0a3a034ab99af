from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, insert

from disagfusion.jobs import sql_retention
from disagfusion.jobs.sql_schema import jobs, metadata
from disagfusion.jobs.store import Expired, RetentionPolicy

NOTHING = RetentionPolicy(None, None, None, None, None)
NOW = 1000.0
BLANK = {
    **dict.fromkeys(("tenant", "pipeline", "fingerprint", "cost_key", "traceparent"), ""),
    **dict.fromkeys(("priority", "num_inference_steps", "submitted_at", "sequence"), 0),
    **dict.fromkeys(("state", "stage_status", "attempt", "failures"), 0),
    "version": "",
    "generation": b"",
}


@dataclass(frozen=True)
class Ended:
    """A job that ended so many seconds ago; None for one that has not."""

    age: float | None
    size: int = 100
    events: int = 5

    @property
    def held(self) -> int:
        """What it counts for in the store."""
        return self.size + 1024 + 128 * self.events


def expired(stored: Sequence[Ended], policy: RetentionPolicy, limit: int = 1000) -> Expired:
    """Ask a database with these jobs in it; they are called 0, 1, 2 ..."""
    engine = create_engine("sqlite://")
    with engine.begin() as connection:
        metadata.create_all(connection)
        for number, job in enumerate(stored):
            ended_at = None if job.age is None else NOW - job.age
            values = {
                "job_id": str(number),
                "ended_at": ended_at,
                "input_bytes": job.size,
                "result_bytes": job.size,
                "event_count": job.events,
            }
            connection.execute(insert(jobs).values(BLANK | values))
        found = sql_retention.expired(connection, policy, NOW, limit)
    engine.dispose()
    return found


def test_without_bounds_all_is_kept() -> None:
    assert expired([Ended(1e9), Ended(1)], NOTHING) == Expired()


def test_age() -> None:
    ended = partial(expired, [Ended(10), Ended(50), Ended(30)])
    assert ended(replace(NOTHING, job_seconds=30)) == Expired(jobs=("1",))
    assert ended(replace(NOTHING, result_seconds=20)) == Expired(results=("1", "2"))
    assert ended(replace(NOTHING, event_seconds=5)) == Expired(events=("1", "2", "0"))


def test_bytes_take_the_oldest() -> None:
    ended = partial(expired, [Ended(10), Ended(50), Ended(30)])
    assert ended(replace(NOTHING, result_bytes=300)) == Expired()
    assert ended(replace(NOTHING, result_bytes=299)).results == ("1",)
    assert ended(replace(NOTHING, result_bytes=99)).results == ("1", "2", "0")
    assert ended(replace(NOTHING, job_bytes=0)).jobs == ("1", "2", "0")


def test_a_job_that_goes_takes_all_with_it() -> None:
    policy = RetentionPolicy(30, 30, 30, 0, None)
    assert expired([Ended(50), Ended(10)], policy) == Expired(jobs=("0",), results=("1",))


def test_what_is_gone_is_not_removed_again() -> None:
    policy = RetentionPolicy(None, 1, 1, 0, None)
    assert expired([Ended(NOW, size=0, events=1)], policy) == Expired()


def test_what_has_not_ended_stays() -> None:
    assert expired([Ended(None)] * 3, RetentionPolicy(0, 0, 0, 0, 0)) == Expired()


def test_no_more_at_a_time_than_asked_for() -> None:
    stored = [Ended(10), Ended(50), Ended(30)]
    assert expired(stored, replace(NOTHING, job_bytes=0), limit=2).jobs == ("1", "2")


ENDED = st.builds(Ended, st.integers(0, 100), st.integers(0, 50), st.integers(1, 9))


@given(st.lists(ENDED, max_size=12), st.integers(0, 300), st.integers(0, 20_000), st.floats(0, 100))
def test_bounds_hold_afterwards(
    stored: list[Ended], result_bytes: int, job_bytes: int, seconds: float
) -> None:
    found = expired(stored, RetentionPolicy(seconds, None, None, result_bytes, job_bytes))
    kept = [job for name, job in enumerate(stored) if str(name) not in found.jobs]
    left = [job for name, job in enumerate(stored) if str(name) not in found.jobs + found.results]
    assert all(job.age is not None and job.age <= seconds for job in kept)
    _fits_and_no_more_went([stored[int(n)] for n in found.jobs], kept, _held, job_bytes, seconds)
    _fits_and_no_more_went(
        [stored[int(n)] for n in found.results], left, _size, result_bytes, seconds
    )


def _held(job: Ended) -> int:
    return job.held


def _size(job: Ended) -> int:
    return job.size


def _fits_and_no_more_went(
    gone: list[Ended],
    kept: list[Ended],
    size: Callable[[Ended], int],
    bound: int,
    seconds: float,
) -> None:
    ages = [job.age or 0 for job in gone]
    assert ages == sorted(ages, reverse=True)
    assert sum(map(size, kept)) <= bound
    if gone and ages[-1] <= seconds:
        assert sum(map(size, kept)) + size(gone[-1]) > bound
