"""A saved model: restored it predicts the same, at once; what was damaged is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from performancekit import MEDIUM, PAIR, TRUE, VIDEO, fitted, profile, samples, shapes, times

from disagfusion.errors import DataLossError, InvalidArgumentError
from disagfusion.scheduling.performance import PerformanceModel
from disagfusion.scheduling.shapes import CostModel, Shape


@pytest.fixture(scope="module")
def saved() -> PerformanceModel:
    """A model that has something of everything."""
    given = samples(shapes(100), peak=CostModel(constant=3.0, per_megapixel=0.7))
    prior = profile(a10={"model": times(TRUE, 0.5)}, l4={"seconds": 9.0, "memory_gib": 3})
    return fitted(given, prior).model.with_corrections({PAIR: 1.0 / 0.6})


def test_after_a_restart_it_predicts_the_same(saved: PerformanceModel) -> None:
    again = PerformanceModel.from_json(saved.to_json())
    for shape in [*shapes(200), VIDEO]:
        for pool in ("a10", "l4", "spare"):
            assert again.predict("dit", pool, shape) == saved.predict("dit", pool, shape)
    assert again.summary(0.0) == saved.summary(0.0)
    assert again.to_document() == saved.to_document()
    assert again.version == saved.version == 1


def test_a_restored_model_can_be_given_a_new_profile(saved: PerformanceModel) -> None:
    prior = profile(a10={"seconds": 1.0}, h100={"seconds": 2.0})
    again = PerformanceModel.from_json(saved.to_json(), profile=prior)
    assert again.predict(*PAIR, MEDIUM) == saved.predict(*PAIR, MEDIUM)
    assert again.predict("dit", "h100", MEDIUM).seconds == 2.0


def _set(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        *inner, last = path.split(".")
        for key in inner:
            document = document[key]
        document[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("kind", "disagfusion.dev/plan"), "model.json: kind: "),
        (_set("format", 2), "model.json: format: "),
        (_set("version", -1), "model.json: version: "),
        (_set("more", 1), "model.json: more: "),
        (_set("pairs.dit.a10.error", "low"), "model.json: pairs.dit.a10.error: "),
        (_set("pairs.dit.a10.error", float("nan")), "model.json: pairs.dit.a10.error: "),
        (_set("pairs.dit.a10.p95_ratio", 0.5), "model.json: pairs.dit.a10.p95_ratio: "),
        (_set("pairs.dit.a10.lowest", [1.0]), "model.json: pairs.dit.a10.lowest: "),
        (
            _set("pairs.dit.a10.seconds.per_step", -0.1),
            "model.json: pairs.dit.a10.seconds.per_step: ",
        ),
        (_set("pairs.dit.a10.seconds", {}), "model.json: pairs.dit.a10: expected a positive"),
        (_set("corrections.dit.a10", 0.0), "model.json: corrections.dit.a10: "),
        (_set("profile.pools", {}), "model.json: profile.pools: "),
    ],
)
def test_a_foreign_file_is_refused_and_the_field_named(
    saved: PerformanceModel, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    document = json.loads(saved.to_json())
    change(document)
    with pytest.raises(InvalidArgumentError) as caught:
        PerformanceModel.from_json(json.dumps(document), name="model.json")
    assert caught.value.message.startswith(message)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", "null", b"\xff\xfe", b"\x00" * 50, "[" * 10**5]
)
def test_what_is_no_document_at_all_is_refused(text: str | bytes) -> None:
    with pytest.raises(InvalidArgumentError, match=r"^model\.json: "):
        PerformanceModel.from_json(text, name="model.json")


def test_a_damaged_number_is_noticed(saved: PerformanceModel) -> None:
    document = json.loads(saved.to_json())
    document["pairs"]["dit"]["a10"]["seconds"]["per_step_megapixel"] *= 1.01
    with pytest.raises(DataLossError, match="damaged"):
        PerformanceModel.from_json(json.dumps(document))
    with pytest.raises(DataLossError):
        PerformanceModel.from_document(saved.to_document().model_copy(update={"checksum": ""}))


def test_a_file_cut_anywhere_is_refused(saved: PerformanceModel) -> None:
    text = saved.to_json()
    for end in range(0, len(text), 97):
        with pytest.raises((InvalidArgumentError, DataLossError)):
            PerformanceModel.from_json(text[:end])


def test_predictions_are_cached_within_bounds(saved: PerformanceModel) -> None:
    model = PerformanceModel.from_json(saved.to_json())
    first = model.predict(*PAIR, MEDIUM)
    assert model.predict(*PAIR, MEDIUM.model_copy()) is first
    for steps in range(1, 5_000):
        model.predict(*PAIR, Shape(num_inference_steps=steps))
    assert len(model._line(*PAIR)._cache) <= 1024
    assert model.predict(*PAIR, MEDIUM) == first
    # A new correction of one pair leaves what is known of others.
    other = model.predict("dit", "l4", MEDIUM)
    changed = model.with_corrections({PAIR: 1.1})
    assert changed.predict("dit", "l4", MEDIUM) is other
    assert changed.predict(*PAIR, MEDIUM) != first


def test_predicting_needs_neither_numpy_nor_scikit_learn(saved: PerformanceModel) -> None:
    program = (
        "import sys\n"
        "from disagfusion.scheduling.performance import PerformanceModel\n"
        "from disagfusion.scheduling.shapes import Shape\n"
        "model = PerformanceModel.from_json(sys.stdin.read())\n"
        "print(model.predict('dit', 'a10', Shape()).seconds)\n"
        "heavy = {'numpy', 'scipy', 'sklearn', 'torch'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", program],
        input=saved.to_json(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert float(run.stdout) == saved.predict(*PAIR, Shape()).seconds
