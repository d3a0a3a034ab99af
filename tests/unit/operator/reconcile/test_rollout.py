"""A new version goes from the front to the back, after the last job of the old one."""

from __future__ import annotations

from bench import Bench
from disagfusion_operator.desired.names import version_of
from disagfusion_operator.reconcile.gateways import Fleet, WorkerReport
from disagfusion_operator.reconcile.rollout import Versions, needs_fleet, turns
from hypothesis import given
from hypothesis import strategies as st

STAGES = ("encoder", "dit", "decoder")
NEW = {stage: {"image": f"registry/{stage}:2"} for stage in STAGES}


def version(bench: Bench, stage: str) -> str:
    return version_of(bench.deployment(stage)["spec"]["template"])


def fleet(old: str, **jobs: int) -> Fleet:
    """Return what a gateway knows: jobs of the old version by stage, and a worker of each."""
    workers = tuple(WorkerReport(f"w-{stage}", (stage,), old, True) for stage in STAGES)
    return Fleet(sum(jobs.values()), {(stage, old): n for stage, n in jobs.items()}, workers)


async def test_stages_follow_one_another_as_their_last_old_jobs_end() -> None:
    bench = Bench()
    await bench.settle()
    old = version(bench, "encoder")
    bench.gateways.state = fleet(old, encoder=1, dit=2, decoder=1)
    await bench.settle(stages=NEW)
    new = version(bench, "encoder")
    assert new != old
    assert [version(bench, stage) for stage in STAGES] == [new, old, old]
    assert bench.condition("Progressing")["reason"] == "RollingOut"
    assert "3 jobs of the old version" in bench.condition("Progressing")["message"]
    assert bench.scaling.views[-1].hold

    bench.gateways.state = fleet(old, decoder=2)
    await bench.settle()
    assert [version(bench, stage) for stage in STAGES] == [new, new, old]
    assert "2 jobs of the old version" in bench.condition("Progressing")["message"]

    bench.gateways.state = fleet(old)
    status = await bench.settle()
    assert [version(bench, stage) for stage in STAGES] == [new] * 3
    assert status["state"] == "Ready"
    assert bench.condition("Progressing")["status"] == "False"
    assert not bench.scaling.views[-1].hold
    pods = [pod for stage in STAGES for pod in bench.nodes.pods(component=stage)]
    assert {pod["metadata"]["annotations"]["disagfusion.dev/version"] for pod in pods} == {new}


async def test_a_rollout_goes_on_after_a_restart() -> None:
    bench = Bench()
    await bench.settle()
    old = version(bench, "encoder")
    bench.gateways.state = fleet(old, dit=1)
    await bench.settle(stages=NEW)
    bench.restart()
    await bench.settle()
    assert version(bench, "dit") == old
    bench.gateways.state = fleet(old)
    bench.restart()
    await bench.settle()
    assert len({version(bench, stage) for stage in STAGES}) == 1


async def test_nothing_is_replaced_while_nobody_says_which_jobs_there_are() -> None:
    bench = Bench()
    await bench.settle()
    old = version(bench, "encoder")
    bench.gateways.state = None
    await bench.settle(stages=NEW)
    assert version(bench, "dit") == old
    assert "no gateway says" in bench.condition("Progressing")["message"]
    bench.gateways.state = Fleet()
    await bench.settle()
    assert version(bench, "dit") != old


async def test_a_stage_behind_the_first_is_replaced_as_a_whole() -> None:
    bench = Bench()
    bench.scaling.wanted = {(stage, "cpu"): 4 for stage in STAGES}
    await bench.settle()
    seen: dict[str, set[str]] = {stage: set() for stage in STAGES}
    before = bench.cluster.follow

    def follow(kind, found, gone):  # type: ignore[no-untyped-def]
        if kind.kind == "Deployment" and (stage := found["metadata"]["name"].split("-")[1]) in seen:
            seen[stage].add(found["spec"]["strategy"]["type"])
        before(kind, found, gone)

    bench.cluster.follow = follow
    await bench.settle(stages=NEW)
    # Encoders go on with old jobs as long as there are old DiTs; DiTs have nobody left to serve.
    both = {"RollingUpdate", "Recreate"}
    assert seen == {"encoder": {"RollingUpdate"}, "dit": both, "decoder": both}
    for stage in STAGES:
        strategy = bench.deployment(stage)["spec"]["strategy"]["rollingUpdate"]
        assert strategy == {"maxSurge": 0, "maxUnavailable": "25%"}


async def test_an_image_that_never_starts_takes_the_encoders_only() -> None:
    bench = Bench()
    bench.scaling.wanted = {("encoder", "cpu"): 3}
    await bench.settle()
    old = version(bench, "encoder")
    bench.write(stages=NEW)
    await bench.look()
    bench.nodes.broken = {version(bench, "encoder")}
    await bench.settle()
    assert len([p for p in bench.nodes.pods(component="encoder") if ready(p)]) == 2
    assert version(bench, "dit") == old
    # Taken back, everything is as it was.
    bench.write()
    status = await bench.settle()
    assert [version(bench, stage) for stage in STAGES] == [old] * 3
    assert status["state"] == "Ready"


async def test_other_changes_are_applied_to_all_stages_at_once() -> None:
    bench = Bench()
    await bench.settle()
    bench.gateways.state = None
    await bench.settle(stages={stage: {"threads": 2} for stage in STAGES})
    for stage in STAGES:
        (container,) = bench.deployment(stage)["spec"]["template"]["spec"]["containers"]
        assert {"name": "DISAGFUSION_THREADS", "value": "2"} in container["env"]


def ready(pod) -> bool:  # type: ignore[no-untyped-def]
    conditions = pod["status"].get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def test_jobs_whose_version_nobody_has_any_more_hold_nothing_up() -> None:
    versions = {"encoder": Versions(frozenset("b"), frozenset("b"), frozenset("b"))}
    for stage in ("dit", "decoder"):
        versions[stage] = Versions(frozenset("a"), frozenset("a"))
    gone = Fleet(3, {("dit", "a"): 3}, ())
    assert turns("b", versions, gone)["dit"].may
    there = Fleet(3, {("dit", "a"): 3}, (WorkerReport("w", ("dit",), "a", False),))
    assert not turns("b", versions, there)["dit"].may
    # A gateway that has just begun has met no worker yet, but the pods take work.
    versions["dit"] = Versions(frozenset("a"), frozenset("a"), frozenset("a"))
    assert not turns("b", versions, gone)["dit"].may


VERSION = st.sampled_from("abc")
SETS = st.frozensets(VERSION, max_size=3)


@given(
    st.fixed_dictionaries({stage: st.tuples(SETS, SETS, SETS) for stage in STAGES}),
    st.dictionaries(st.tuples(st.sampled_from(STAGES), VERSION), st.integers(0, 3)),
    st.frozensets(st.tuples(st.sampled_from(STAGES), VERSION)),
)
def test_no_stage_gets_the_new_version_before_its_turn(
    found: dict[str, tuple[frozenset[str], ...]],
    jobs: dict[tuple[str, str], int],
    workers: frozenset[tuple[str, str]],
) -> None:
    versions = {stage: Versions(*sets) for stage, sets in found.items()}
    reports = tuple(WorkerReport(f"{s}-{v}", (s,), v, True) for s, v in workers)
    decided = turns("c", versions, Fleet(0, jobs, reports))
    for index, stage in enumerate(STAGES[1:], 1):
        if not versions[stage].templates - {"c"} or not decided[stage].may:
            continue
        # Everything before it is new, and no job before it needs the old one of this stage.
        assert not any(versions[one].old("c") for one in STAGES[:index])
        there = versions[stage].ready | {v for s, v in workers if s == stage}
        for (where, version), count in jobs.items():
            if STAGES.index(where) <= index and version != "c" and version in there:
                assert count == 0
    if not needs_fleet("c", versions):
        assert turns("c", versions, None) == decided
