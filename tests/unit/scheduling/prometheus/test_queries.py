"""What is asked."""

from __future__ import annotations

import pytest

from disagfusion.errors import InvalidArgumentError
from disagfusion.scheduling.prometheus.queries import JOBS, QUERIES, REPLICAS, Scope


def test_a_query_leaves_out_old_series_and_counts_an_instance_once() -> None:
    scope = Scope("flux", window=30.0, stale=45.0)
    assert REPLICAS.promql(scope) == (
        "max by (stage, pool, state) (max by (stage, pool, state, instance) "
        '((disagfusion_workers{pipeline="flux"} and '
        '(timestamp(disagfusion_workers{pipeline="flux"}) > time() - 45))))'
    )
    assert JOBS.time(scope) == (
        'max by (stage, status) (timestamp(disagfusion_stage_jobs{pipeline="flux"}))'
    )
    assert "time()" not in JOBS.promql(scope, fresh=False)


def test_all_selectors_have_the_pipeline_and_the_further_matchers() -> None:
    scope = Scope('a"b\\c\n', matchers=('namespace="prod"',))
    for query in QUERIES:
        text = query.request(scope)
        expected = '{pipeline="a\\"b\\\\c\\n", namespace="prod"'
        assert text.count("{") == text.count(expected) >= 4, query.name


def test_names_are_unique_and_meanings_are_sentences() -> None:
    assert len({query.name for query in QUERIES}) == len(QUERIES)
    assert all(query.meaning.endswith(".") for query in QUERIES)


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("field", ["window", "stale"])
def test_seconds_that_are_none_are_refused(field: str, seconds: float) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        Scope("p", **{field: seconds})
    assert refused.value.field == field
