"""What the overlap benchmark measures is there, and the ways of handing over differ."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import overlap
from benchmarks.overlapkit.scenario import Outcome, Scenario, measure
from benchmarks.overlapkit.workload import digits, paced

pytestmark = pytest.mark.timeout(300)
OUTCOME = Outcome(
    jobs=9,
    jobs_per_second=45.0,
    compute_ms=20.0,
    idle_share=0.1,
    starved_share=0.0,
    blocked_share=0.0,
    exposed_share=0.0,
    hidden_share=1.0,
    input_ms=(1.0, 2.0, 3.0),
    output_ms=(1.0, 2.0, 3.0),
    job_ms=(1.0, 2.0, 3.0),
    problems=(),
)


@pytest.mark.parametrize(("way", "hidden"), [("sync", False), ("async, depth 2", True)])
def test_jobs_flow_and_only_asynchronous_hand_overs_are_hidden(
    fork_server: str, way: str, hidden: bool
) -> None:
    # Transfers take as long as compute: whatever this machine does, some of it falls together.
    scenario = Scenario(transfer_seconds=overlap.COMPUTE, seconds=1.0, **overlap.WAYS[way])
    outcome = measure(scenario, fork_server)
    assert outcome.problems == ()
    assert outcome.jobs >= 2
    assert outcome.compute_ms >= overlap.COMPUTE * 1e3
    assert (outcome.hidden_share > 0) is hidden
    assert outcome.exposed_share > 0
    shortest = overlap.COMPUTE * 1e3 * 0.9
    assert outcome.input_ms[0] > shortest
    assert outcome.output_ms[0] > shortest


@pytest.mark.parametrize("work", ["multiply", "copy"])
def test_real_work_pinned_beside_large_hand_overs(fork_server: str, work: str) -> None:
    outcome = measure(
        Scenario(
            workload=paced(work, 1, 2 << 20, 4 << 20),
            seconds=1.0,
            engine_cpus=(0,),
        ),
        fork_server,
    )
    assert outcome.problems == ()
    assert outcome.jobs >= 2


def test_the_real_model_is_measured_too(fork_server: str) -> None:
    outcome = measure(Scenario(workload=digits(), seconds=2.0), fork_server)
    assert outcome.problems == ()
    assert outcome.jobs >= 2
    assert outcome.compute_ms > 1.0


def test_the_report_shows_everything(tmp_path: Path) -> None:
    ways = dict.fromkeys(overlap.WAYS, OUTCOME)
    shares = {way: {str(ratio): 0.5 for ratio in overlap.RATIOS} for way in overlap.SWEPT}
    report = overlap.Report(
        environment={},
        jitter=dict.fromkeys(overlap.JITTERS, ways),
        sweep={"none": shares, "heavy tail": shares},
        digits={overlap.NO_LINK: ways},
        video={"multiply": {"64 bytes": OUTCOME, "20 and 42 MiB": OUTCOME}},
    )
    console = Console(record=True, width=160)
    overlap.show(report, console)
    text = console.export_text()
    assert all(name in text for name in (*overlap.JITTERS, *overlap.WAYS, "+0.0%"))
    overlap.plot(report, tmp_path / "plot.svg")
    drawn = (tmp_path / "plot.svg").read_text()
    assert all(f">{way}<" in drawn for way in overlap.SWEPT)
