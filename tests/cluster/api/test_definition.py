"""The real API server accepts and refuses what it should, and says why."""

from __future__ import annotations

import pytest

from .cases import SMALLEST, Case, cases
from .conftest import Api, RefusedError

pytestmark = pytest.mark.smoke

CASES = list(cases())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.constraint)
def test_one_is_accepted_and_one_is_refused_with_a_reason(case: Case, api: Api) -> None:
    if case.before is None:
        api.create(case.accepted)
        with pytest.raises(RefusedError) as refused:
            api.create(case.refused)
    else:
        there = api.create(case.before, dry=False)
        version = {"resourceVersion": there["metadata"]["resourceVersion"]}
        try:
            api.replace(case.accepted | {"metadata": case.accepted["metadata"] | version})
            with pytest.raises(RefusedError) as refused:
                api.replace(case.refused | {"metadata": case.refused["metadata"] | version})
        finally:
            api.delete(case.before["metadata"]["name"])
    assert case.says in str(refused.value), str(refused.value)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({"modle": {}}, 'unknown field "spec.modle"'),
        ({"stages": {"vae": {}}}, 'unknown field "spec.stages.vae"'),
        ({"scaling": {"budget": "many"}}, 'spec.scaling.budget: Invalid value: "string"'),
        ({"scaling": {"headroom": 0.2}}, "spec.scaling.headroom"),
    ],
    ids=["field", "stage", "type", "fraction"],
)
def test_what_is_not_there_and_wrong_types_are_refused(
    api: Api, spec: dict[str, object], says: str
) -> None:
    smallest = SMALLEST["spec"]
    with pytest.raises(RefusedError) as refused:
        api.create(SMALLEST | {"spec": smallest | spec})
    assert says in str(refused.value), str(refused.value)


def test_the_smallest_pipeline_is_filled_in(api: Api) -> None:
    spec = api.create(SMALLEST)["spec"]
    assert spec["stages"]["dit"]["minReplicas"] == 1
    assert spec["gateway"]["store"] == {"sqlite": {"storage": "1Gi"}}
    assert spec["scaling"]["mode"] == "Auto"
