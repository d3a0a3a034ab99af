from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from disagfusion.jobs.retention import RetentionPlan, RetentionPolicy, plan
from disagfusion.jobs.store import EndedJob

NOTHING = RetentionPolicy(None, None, None, None, None)
NOW = 1000.0


def ended(ages: list[float], size: int = 100) -> list[EndedJob]:
    return [
        EndedJob(f"job-{i}", NOW - age, input_bytes=size, result_bytes=size, events=5)
        for i, age in enumerate(sorted(ages, reverse=True))
    ]


def test_without_bounds_all_is_kept() -> None:
    assert plan(ended([1e9, 1]), NOTHING, NOW) == RetentionPlan()


def test_age() -> None:
    jobs = ended([50, 30, 10])
    assert plan(jobs, replace(NOTHING, job_seconds=30), NOW) == RetentionPlan(jobs=("job-0",))
    assert plan(jobs, replace(NOTHING, result_seconds=20), NOW).results == ("job-0", "job-1")
    assert plan(jobs, replace(NOTHING, event_seconds=5), NOW).events == ("job-0", "job-1", "job-2")


def test_bytes_take_the_oldest() -> None:
    jobs = ended([50, 30, 10])
    assert plan(jobs, replace(NOTHING, result_bytes=300), NOW) == RetentionPlan()
    assert plan(jobs, replace(NOTHING, result_bytes=299), NOW).results == ("job-0",)
    assert plan(jobs, replace(NOTHING, result_bytes=99), NOW).results == ("job-0", "job-1", "job-2")
    assert plan(jobs, replace(NOTHING, job_bytes=0), NOW).jobs == ("job-0", "job-1", "job-2")


def test_a_job_that_goes_takes_all_with_it() -> None:
    policy = RetentionPolicy(30, 30, 30, 0, None)
    planned = plan(ended([50, 10]), policy, NOW)
    assert planned == RetentionPlan(jobs=("job-0",), results=("job-1",))


def test_what_is_gone_is_not_removed_again() -> None:
    jobs = [EndedJob("job-0", 0.0, input_bytes=1, result_bytes=0, events=1)]
    policy = RetentionPolicy(None, 1, 1, 0, None)
    assert plan(jobs, policy, NOW) == RetentionPlan()


@given(
    st.lists(st.tuples(st.floats(0, 100), st.integers(0, 50), st.integers(1, 9)), max_size=20),
    st.integers(0, 300),
    st.integers(0, 30_000),
    st.floats(0, 100),
)
def test_bounds_hold_afterwards(
    jobs: list[tuple[float, int, int]], result_bytes: int, job_bytes: int, seconds: float
) -> None:
    records = [
        EndedJob(f"job-{i}", NOW - age, size, size, events)
        for i, (age, size, events) in enumerate(sorted(jobs, reverse=True))
    ]
    policy = RetentionPolicy(seconds, None, None, result_bytes, job_bytes)
    planned = plan(records, policy, NOW)
    kept = [job for job in records if job.job_id not in planned.jobs]
    assert all(NOW - job.ended_at <= seconds for job in kept)
    assert sum(job.input_bytes for job in kept) <= job_bytes
    left = [job for job in kept if job.job_id not in planned.results]
    assert sum(job.result_bytes for job in left) <= result_bytes
    # Not more than needed goes: with the newest of the removed back, a bound would be broken.
    if planned.results:
        back = next(job for job in kept if job.job_id == planned.results[-1])
        assert sum(job.result_bytes for job in left) + back.result_bytes > result_bytes
