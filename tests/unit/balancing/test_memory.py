"""What was learned is there after a restart, as far as it still holds."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from disagfusion.balancing.control import SupervisorControl
from disagfusion.balancing.keeper import Keeper
from disagfusion.balancing.learner import Learner
from disagfusion.balancing.memory import LIMIT_BYTES, Memory, MemoryDocument, load, save
from disagfusion.balancing.signals import EmbeddedSignals
from disagfusion.scheduling.performance.documents import FittedPair
from disagfusion.scheduling.performance.exchange import SnapshotDocument
from disagfusion.scheduling.performance.model import PerformanceModel
from disagfusion.scheduling.performance.samples import Sample, SampleSnapshot
from disagfusion.scheduling.performance.settings import PerformanceSettings
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import CostModel, Shape

AGE = PerformanceSettings().sample_age


def make_profile(**stages: dict[str, Any]) -> Profile:
    return Profile.model_validate(
        {
            "pools": {"a": {"accelerators": 8}, "b": {"accelerators": 8}},
            "stages": {name: {"pools": pools} for name, pools in stages.items()},
        }
    )


PROFILE = make_profile(
    dit={"a": {"seconds": 2}, "b": {"seconds": 6}}, decoder={"a": {"seconds": 1}}
)


def shape(steps: int) -> Shape:
    return Shape(num_inference_steps=steps)


def pair(per_step: float, at: float) -> FittedPair:
    row = shape(1).features
    return FittedPair(
        seconds=CostModel(per_step=per_step), p95_ratio=1.1, samples=40, error=0.05, lowest=row,
        highest=shape(50).features, version=3, fitted_at=at, confirmed_at=at,
    )  # fmt: skip


def learn(learner: Learner, seconds: float, pool: str = "a", count: int = 30) -> None:
    for number in range(count):
        sample = Sample("dit", pool, shape(4), seconds, None, 10.0 * number)
        learner.observe(sample, now=10.0 * number, incarnation="one")


class Kept:
    """A learner whose memory is saved at 300 s, 1000 Unix seconds."""

    def __init__(self, directory: Path, learner: Learner, **changed: Any) -> None:
        self.file = directory / "balancer.json"
        snapshot = SnapshotDocument.of(learner.snapshot(300.0))
        self.document = MemoryDocument(
            pipeline="p", saved_at=1000.0, now=300.0, gateway="g", samples_cursor=7,
            model=learner.model.to_document(), samples=snapshot, parameters={"tolerance": 0.04},
        ).model_copy(update=changed)  # fmt: skip
        save(self.file, self.document)

    def load(
        self, profile: Profile = PROFILE, time: float = 1010.0, pipeline: str = "p"
    ) -> Memory | None:
        return load(self.file, pipeline, profile, time=time, time_scale=1.0)

    def after(self, profile: Profile = PROFILE, time: float = 1010.0) -> Learner:
        memory = self.load(profile, time)
        assert memory is not None
        return Learner(profile, memory)


def seconds(learner: Learner, pool: str = "a", steps: int = 4) -> float:
    return learner.predictor.seconds("dit", pool, shape(steps))


def test_a_restart_keeps_predictions_samples_and_parameters(tmp_path: Path) -> None:
    before = Learner(PROFILE)
    learn(before, 4.0)
    kept = Kept(tmp_path, before)
    memory = kept.load()
    assert memory is not None
    assert (memory.gateway, memory.samples_cursor) == ("g", 7)
    assert memory.parameters == {"tolerance": 0.04}
    after = kept.after()
    assert seconds(after) == seconds(before) == pytest.approx(4.0, rel=0.06)
    # The first was the warm-up. Ten seconds passed in between.
    ages = [sample.at for sample in after.snapshot(0.0).samples]
    assert ages == [10.0 * number - 310.0 for number in range(1, 30)]
    # Without a fit these are enough for one with eleven more.
    assert after.observed == 29


def test_a_fit_and_its_version_are_kept_and_grow_old(tmp_path: Path) -> None:
    model = PerformanceModel(PROFILE, {("dit", "a"): pair(1.0, 290.0)}, version=3)
    memory = Memory(model, SampleSnapshot(), {}, "", 0)
    kept = Kept(tmp_path, Learner(PROFILE, memory))
    assert seconds(kept.after(), steps=9) == pytest.approx(9.0)
    rows = {(row.stage, row.pool): row for row in kept.after().summary(0.0)}
    assert (rows["dit", "a"].version, rows["dit", "a"].age) == (3, 20.0)
    late = kept.after(time=1000.0 + PerformanceSettings().model_age)
    assert seconds(late, steps=9) == 2.0


def test_what_is_older_than_samples_live_corrects_nothing(tmp_path: Path) -> None:
    before = Learner(PROFILE)
    learn(before, 4.0)
    after = Kept(tmp_path, before).after(time=1000.0 + AGE)
    assert after.snapshot(0.0).samples == ()
    assert seconds(after) == 2.0


def test_after_a_restart_corrections_follow_new_jobs_as_before(tmp_path: Path) -> None:
    before = Learner(PROFILE)
    learn(before, 4.0)
    after = Kept(tmp_path, before).after()
    learn(after, 8.0)
    assert seconds(after) == pytest.approx(8.0, rel=0.06)


@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        (make_profile(dit={"b": {"seconds": 6}}), 6.0),
        # Its jobs were measured on one accelerator.
        (make_profile(dit={"a": {"seconds": 2, "accelerators": 2}, "b": {"seconds": 6}}), 2.0),
        # The profile says by now what was measured: nothing is to be corrected twice.
        (make_profile(dit={"a": {"seconds": 4}, "b": {"seconds": 6}}), 4.0),
        (make_profile(dit={"a": {"seconds": 3}, "b": {"seconds": 6}}), 4.0),
    ],
    ids=["pool gone", "other accelerators", "profile mended", "profile changed"],
)
def test_a_profile_that_has_changed_since(
    tmp_path: Path, profile: Profile, expected: float
) -> None:
    before = Learner(PROFILE)
    learn(before, 4.0)
    pool = "a" if "a" in profile.stages["dit"].pools else "b"
    after = Kept(tmp_path, before).after(profile)
    assert seconds(after, pool) == pytest.approx(expected, rel=0.03)
    known = {(row.stage, row.pool) for row in after.summary(0.0)}
    assert known == {("dit", pool) for pool in profile.stages["dit"].pools}


def test_of_a_stage_that_is_gone_nothing_is_left(tmp_path: Path) -> None:
    before = Learner(PROFILE)
    learn(before, 4.0)
    after = Kept(tmp_path, before).after(make_profile(decoder={"a": {"seconds": 1}}))
    assert after.snapshot(0.0).samples == ()
    assert [(row.stage, row.correction) for row in after.summary(0.0)] == [("decoder", 1.0)]


def cut(text: str) -> str:
    return text[: len(text) // 2]


def another_figure(text: str) -> str:
    return text.replace('"seconds":4.0', '"seconds":5.0', 1)


def another_kind(text: str) -> str:
    return json.dumps({**json.loads(text), "kind": "disagfusion.dev/performance-model"})


def newer(text: str) -> str:
    return json.dumps({**json.loads(text), "format": 2})


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (cut, "JSON"),
        (lambda text: "", "JSON"),
        (lambda text: "[]", "MemoryDocument"),
        (lambda text: text.replace("1000.0", "NaN"), "saved_at"),
        (another_figure, "checksum"),
        (another_kind, "kind"),
        (newer, "format"),
        (lambda text: text + " " * LIMIT_BYTES, "bytes"),
    ],
)
def test_a_file_that_is_damaged_or_foreign_is_set_aside(
    tmp_path: Path, harm: Callable[[str], str], problem: str
) -> None:
    before = Learner(PROFILE)
    learn(before, 4.0)
    kept = Kept(tmp_path, before)
    harmed = harm(kept.file.read_text())
    kept.file.write_text(harmed)
    with capture_logs() as logs:
        assert kept.load() is None
    assert problem in logs[0]["problem"]
    assert not kept.file.exists()
    assert (tmp_path / "balancer.json.unusable").read_text() == harmed
    assert seconds(Learner(PROFILE, kept.load())) == 2.0


def test_another_pipelines_file_is_set_aside(tmp_path: Path) -> None:
    kept = Kept(tmp_path, Learner(PROFILE))
    assert kept.load(pipeline="q") is None
    assert [file.name for file in tmp_path.iterdir()] == ["balancer.json.unusable"]


def test_a_file_that_cannot_be_read_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "balancer.json").mkdir()
    assert load(tmp_path / "balancer.json", "p", PROFILE, time=0.0, time_scale=1.0) is None
    assert (tmp_path / "balancer.json").is_dir()


def test_a_clock_that_went_back_makes_nothing_younger(tmp_path: Path) -> None:
    before = Learner(PROFILE)
    learn(before, 4.0)
    memory = Kept(tmp_path, before).load(time=500.0)
    assert memory is not None
    assert max(sample.at for sample in memory.samples.samples) == -10.0


def test_time_passes_faster_where_it_is_scaled(tmp_path: Path) -> None:
    before = Learner(PROFILE)
    learn(before, 4.0)
    file = Kept(tmp_path, before).file
    memory = load(file, "p", PROFILE, time=1010.0, time_scale=0.1)
    assert memory is not None
    assert max(sample.at for sample in memory.samples.samples) == -110.0


class Keeping:
    def __init__(self, directory: Path) -> None:
        self.learner = Learner(PROFILE)
        self.parameters: dict[str, float] = {}
        self.file = directory / "balancer.json"
        signals = EmbeddedSignals(
            f"unix:{directory}/nobody", SupervisorControl(f"{directory}/nobody", 0.05), PROFILE,
            {}, self.learner, [], time_scale=1.0, patience=0.05, stale_after=30.0,
            gateway=("before", 3),
        )  # fmt: skip
        self.keeper = Keeper(
            self.file, "p", self.learner, signals, lambda: self.parameters, lambda: 300.0
        )

    def save(self) -> MemoryDocument | None:
        """What is written now; None for nothing."""
        self.file.unlink(missing_ok=True)
        asyncio.run(self.keeper.save())
        if not self.file.exists():
            return None
        return MemoryDocument.model_validate_json(self.file.read_bytes())


def test_only_what_is_new_is_saved(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path)
    assert keeping.save() is None
    learn(keeping.learner, 4.0)
    written = keeping.save()
    assert written is not None
    assert (written.gateway, written.samples_cursor, written.now) == ("before", 3, 300.0)
    assert len(written.samples.samples) == 29
    assert keeping.save() is None
    keeping.parameters["tolerance"] = 0.04
    again = keeping.save()
    assert again is not None
    assert again.parameters == {"tolerance": 0.04}
    assert [file.name for file in tmp_path.iterdir()] == ["balancer.json"]


def test_a_disk_that_takes_nothing_is_tried_again(tmp_path: Path) -> None:
    keeping = Keeping(tmp_path)
    keeping.file.mkdir()
    learn(keeping.learner, 4.0)
    with capture_logs() as logs:
        asyncio.run(keeping.keeper.save())
    assert [log["event"] for log in logs] == ["what was learned was not saved"]
    keeping.file.rmdir()
    assert keeping.save() is not None


def test_the_file_is_bounded(tmp_path: Path) -> None:
    capacity = PerformanceSettings().capacity
    learner = Learner(PROFILE)
    learn(learner, 4.0 * math.pi, count=3 * capacity)
    kept = Kept(tmp_path, learner, now=30.0 * capacity)
    assert len(kept.document.samples.samples) <= capacity
    memory = replace(kept.load() or pytest.fail("nothing"), parameters={})
    assert len(memory.samples.samples) <= capacity
    assert kept.file.stat().st_size < 400 * capacity
