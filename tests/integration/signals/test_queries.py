"""What the queries make of series, by Prometheus' own engine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import yaml

from disagfusion.scheduling.prometheus import queries
from disagfusion.scheduling.prometheus.queries import Query, Scope
from disagfusion.telemetry import catalog

from .conftest import tool

# A sample every 15 seconds; values are asked for after 10 minutes.
SCOPE = Scope("flux", window=60.0, stale=40.0)

# Samples of a pod that was replaced a minute ago: Prometheus takes the last one of a series that
# ends without a word for the present one for five minutes.
GONE = 36

BACKLOG_WORK = catalog.BACKLOG_WORK.name


def series(metric: str, values: str, **labels: str) -> dict[str, str]:
    told = {"pipeline": "flux", **labels}
    text = ", ".join(f'{name}="{value}"' for name, value in told.items())
    return {"series": f"{metric}{{{text}}}", "values": values}


def constant(value: int, until: int = 60) -> str:
    return f"{value}x{until}"


def rising(step: float, until: int = 60) -> str:
    return f"0+{step:g}x{until}"


def jobs(count: int, instance: str, **labels: str) -> dict[str, str]:
    return series(
        "disagfusion_stage_jobs",
        constant(count, int(labels.pop("until", "60"))),
        **{"instance": instance, "stage": "dit", "status": "waiting", **labels},
    )


def spent(state: str, step: float, instance: str, **labels: str) -> dict[str, str]:
    return series(
        "disagfusion_accelerator_seconds_total",
        rising(step, int(labels.pop("until", "60"))),
        **{"instance": instance, "stage": "dit", "pool": "a10", "state": state, **labels},
    )


def workers(state: str, count: int, instance: str, until: int = 60) -> dict[str, str]:
    labels = {"instance": instance, "stage": "dit", "pool": "a10", "state": state}
    return series("disagfusion_workers", constant(count, until), **labels)


Expected = dict[str, float]
DIT = '{stage="dit"}'
WAITING = '{stage="dit", status="waiting"}'

CASES: dict[str, tuple[Query, list[dict[str, str]], Expected]] = {
    "nothing": (queries.JOBS, [], {}),
    "a zero that was measured": (queries.JOBS, [jobs(0, "g:1")], {WAITING: 0}),
    "two gateways with jobs of their own": (
        queries.JOBS,
        [jobs(3, "g:1"), jobs(4, "g:2")],
        {WAITING: 7},
    ),
    "a gateway that was replaced": (
        queries.JOBS,
        [jobs(3, "g:1", until=str(GONE)), jobs(4, "g:2")],
        {WAITING: 4},
    ),
    "a gateway that is scraped twice": (
        queries.JOBS,
        [jobs(4, "g:1", job="pods"), jobs(4, "g:1", job="services")],
        {WAITING: 4},
    ),
    "another pipeline": (queries.JOBS, [jobs(4, "g:1", pipeline="wan")], {}),
    "a gateway that is gone": (queries.JOBS, [jobs(3, "g:1", until=str(GONE))], {}),
    "two gateways with the same workers": (
        queries.REPLICAS,
        [workers("ready", 3, "g:1"), workers("ready", 3, "g:2"), workers("loading", 1, "g:1")],
        {
            '{stage="dit", pool="a10", state="ready"}': 3,
            '{stage="dit", pool="a10", state="loading"}': 1,
        },
    ),
    "arrivals at a gateway that started anew": (
        queries.ARRIVALS,
        [series("disagfusion_jobs_accepted_total", "0+30x38 30+30x22", instance="g:1")],
        {"{}": 2},
    ),
    "shares of two replicas, one of which is loading": (
        queries.SHARES,
        [
            spent("busy", 9, "d:1"), spent("starved", 3, "d:1"), spent("blocked", 3, "d:1"),
            spent("loading", 0, "d:1"), spent("busy", 0, "d:2"), spent("starved", 0, "d:2"),
            spent("blocked", 0, "d:2"), spent("loading", 15, "d:2"),
        ],
        {
            '{stage="dit", state="busy"}': 0.6,
            '{stage="dit", state="starved"}': 0.2,
            '{stage="dit", state="blocked"}': 0.2,
        },
    ),
    "shares where nobody has loaded": (
        queries.SHARES,
        [spent("busy", 0, "d:1"), spent("starved", 0, "d:1"), spent("loading", 15, "d:1")],
        {},
    ),
    "replicas that report: one was replaced, one took another stage": (
        queries.REPORTING,
        [
            spent("busy", 15, "d:1", until=str(GONE)),
            spent("busy", 15, "d:2"),
            spent("starved", 15, "d:3"),
            spent("busy", 0, "d:4"),
            spent("busy", 15, "d:4", stage="decoder"),
        ],
        {DIT: 2, '{stage="decoder"}': 1},
    ),
    "assignments of two replicas": (
        queries.COMPLETED,
        [
            series("disagfusion_compute_seconds_count", rising(15), instance="d:1", stage="dit"),
            series("disagfusion_compute_seconds_count", rising(30), instance="d:2", stage="dit"),
        ],
        {DIT: 3},
    ),
    "mean seconds": (
        queries.SECONDS,
        [
            series("disagfusion_compute_seconds_count", rising(15), instance="d:1", stage="dit"),
            series("disagfusion_compute_seconds_sum", rising(60), instance="d:1", stage="dit"),
            series("disagfusion_compute_seconds_count", constant(5), instance="d:2", stage="dit"),
            series("disagfusion_compute_seconds_sum", constant(900), instance="d:2", stage="dit"),
        ],
        {DIT: 4},
    ),
    "mean seconds where no job has ended": (
        queries.SECONDS,
        [
            series("disagfusion_compute_seconds_count", constant(5), instance="d:1", stage="dit"),
            series("disagfusion_compute_seconds_sum", constant(900), instance="d:1", stage="dit"),
        ],
        {},
    ),
    "work that is left": (
        queries.BACKLOG,
        [
            series(BACKLOG_WORK, constant(40), instance=f"g:{n}", stage="dit", pool="a10")
            for n in (1, 2)
        ],
        {'{stage="dit", pool="a10"}': 80},
    ),
    "accepted jobs without a stage": (
        queries.QUEUED,
        [series("disagfusion_gateway_queue_jobs", constant(6), instance="g:1")],
        {"{}": 6},
    ),
}  # fmt: skip


def test_values_are_those_of_the_system_and_not_of_the_scrapes(tmp_path: Path) -> None:
    assert {query for query, _, _ in CASES.values()} == set(queries.QUERIES)
    tests = [
        {
            "name": name,
            "interval": "15s",
            "input_series": given,
            "promql_expr_test": [
                {
                    "expr": f"round({query.promql(SCOPE)}, 0.001)",
                    "eval_time": "10m",
                    "exp_samples": [
                        {"labels": labels, "value": value} for labels, value in expected.items()
                    ],
                }
            ],
        }
        for name, (query, given, expected) in CASES.items()
    ]
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run(
        [tool("promtool"), "test", "rules", file],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
