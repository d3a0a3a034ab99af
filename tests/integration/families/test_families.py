"""Every family: three processes compute, bit for bit, what the unsplit pipeline computes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from familykit.cases import CASES, Case
from familykit.run import STAGES, difference, run_case

from disagfusion.pipeline.model_files import read_index
from disagfusion.pipeline.options import LoadOptions
from disagfusion.pipeline.stage_components import stage_components
from disagfusion.pipeline.stages import Stage

if TYPE_CHECKING:
    from familykit.client import Workers

# The first test waits for the fork server's imports.
pytestmark = pytest.mark.timeout(300)


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
def test_three_processes_equal_the_unsplit_pipeline(
    case: Case, workers: Workers, models: Path, tmp_path: Path
) -> None:
    outcome = run_case(workers, case, models, tmp_path)

    if case.modular_fails:
        assert outcome.modular is None, "upstream works now: compare with it"
    else:
        assert outcome.modular is not None, outcome.modular_error
        assert difference(outcome.split, outcome.modular) == 0.0
    if case.classic is not None and case.tolerance is not None:
        assert outcome.classic is not None
        assert difference(outcome.split, outcome.classic) <= case.tolerance
    assert outcome.modules_in_reference == []

    assert outcome.insensitive == [], "a case that does not see its inputs proves nothing"
    assert outcome.split.std() > 0.01
    assert len({outcome.reports[stage]["pid"] for stage in STAGES}) == 3
    for stage in STAGES:
        report = outcome.reports[stage]
        assert set(report["workflow"].values()) == {case.workflow}
        assert report["non_finite"] == []
        index = read_index(str(models / case.model), LoadOptions())
        assert set(report["components"]) == set(stage_components(index, Stage(stage)))
        if stage in case.components:
            assert sorted(report["components"]) == case.components[stage]
    steps = outcome.reports["dit"]["steps"]["base"]
    assert [done for done, _ in steps] == list(range(1, len(steps) + 1))
    assert steps[-1][0] == steps[-1][1]
