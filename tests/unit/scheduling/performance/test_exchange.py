"""A fit in a process of its own."""

from __future__ import annotations

import io
import json
import subprocess
import sys

import pytest
from performancekit import MEDIUM, SETTINGS, error, fitted, off_by, samples, shapes

from disagfusion.errors import DataLossError
from disagfusion.scheduling.performance import (
    FitAnswer,
    FitRequest,
    PerformanceModel,
    Reason,
    SampleSnapshot,
)
from disagfusion.scheduling.performance.__main__ import main
from disagfusion.scheduling.performance.documents import from_json, to_json


def test_a_process_fits_as_the_function_does() -> None:
    prior = off_by(0.5)
    current = fitted(samples(shapes(40)), prior).model
    snapshot = SampleSnapshot(
        tuple(samples(shapes(100, 1), start=1_000.0, factor=1.5)), {("dit", "a10"): 500.0}
    )
    request = FitRequest.of(snapshot, current, prior, SETTINGS, 20_000.0)
    process = subprocess.run(
        [sys.executable, "-m", "disagfusion.scheduling.performance"],
        input=to_json(request),
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert (process.returncode, process.stderr) == (0, "")
    result = from_json(FitAnswer, process.stdout, name="answer").result()
    assert [row.reason for row in result.results] == [Reason.ADOPTED]
    assert result.model.version == 2
    assert error(result.model, set(shapes(100, 1)), factor=1.5) < 0.1
    here = request.answer().result()
    assert result.results == here.results
    assert result.model.to_document() == here.model.to_document()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "request: Expecting value"),
        ("{}", "request: snapshot: Field required"),
        ('{"kind": "disagfusion.dev/performance-model"}', "request: kind: "),
    ],
)
def test_it_says_what_is_wrong_with_a_request(
    text: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))
    assert main() == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith(message)
    assert len(output.err.splitlines()) == 1


def test_a_damaged_model_in_a_request_is_refused() -> None:
    request = FitRequest.of(
        SampleSnapshot(), PerformanceModel(off_by(1.0)), off_by(1.0), SETTINGS, 0.0
    )
    document = json.loads(to_json(request))
    document["current"]["version"] = 7
    damaged = from_json(FitRequest, json.dumps(document), name="request")
    with pytest.raises(DataLossError):
        damaged.answer()


def test_nothing_to_fit_is_no_error() -> None:
    request = FitRequest.of(SampleSnapshot(), None, off_by(1.0), SETTINGS, 0.0)
    answer = from_json(FitRequest, to_json(request), name="request").answer()
    assert [row.reason for row in answer.results] == [Reason.TOO_FEW_SAMPLES]
    model = answer.result().model
    assert model.version == 0
    assert model.predict("dit", "a10", MEDIUM) == PerformanceModel(off_by(1.0)).predict(
        "dit", "a10", MEDIUM
    )
