"""The balancer's gauges as a scrape tells them."""

from __future__ import annotations

import random
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from disagfusion.balancing.control import SupervisorControl
from disagfusion.balancing.exporter import Exporter
from disagfusion.balancing.instances import Instance, Phase
from disagfusion.balancing.learner import Learner
from disagfusion.balancing.signals import EmbeddedSignals
from disagfusion.scheduling.decision import Decision, Move, Place, Reason
from disagfusion.scheduling.performance.documents import FittedPair
from disagfusion.scheduling.performance.model import PerformanceModel
from disagfusion.scheduling.performance.samples import Sample
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import CostModel, Shape
from disagfusion.telemetry.metrics import BalancerMetrics

DIT, DECODER, ENCODER = Place("dit", "a"), Place("decoder", "a"), Place("encoder", "a")
PROFILE = Profile.model_validate(
    {
        "pools": {"a": {"accelerators": 8}},
        "stages": {
            "encoder": {"pools": {"a": {"seconds": 1}}},
            "dit": {"pools": {"a": {"model": {"per_step": 2}, "accelerators": 2}}},
            "decoder": {"pools": {"a": {"seconds": 1}}},
        },
    }
)

Labels = tuple[str, ...]


class World:
    def __init__(self, directory: Path, budget: int = 9) -> None:
        self.registry = CollectorRegistry()
        self.learner, self.waiting = Learner(PROFILE), list[Place]()
        self.signals = EmbeddedSignals(
            f"unix:{directory}/nobody", SupervisorControl(f"{directory}/nobody", 0.05), PROFILE,
            {}, self.learner, self.waiting, time_scale=1.0, patience=0.05, stale_after=30.0,
        )  # fmt: skip
        metrics = BalancerMetrics(self.registry, pipeline="p", reasons=["rebalance"])
        self.exporter = Exporter(
            metrics, "p", PROFILE, self.signals, self.waiting, self.learner, budget=budget
        )

    def export(self, *moves: Move) -> None:
        self.exporter.export(Decision(100.0, moves, Reason.REBALANCE))

    def read(self, name: str, *labels: str) -> dict[Labels, float]:
        """A gauge's values by these labels."""
        text = generate_latest(self.registry).decode()
        return {
            tuple(sample.labels[label] for label in labels): sample.value
            for family in text_string_to_metric_families(text)
            if family.name == f"disagfusion_{name}"
            for sample in family.samples
            if sample.labels["pipeline"] == "p"
        }


def instance(name: str, place: Place, phase: Phase, wanted: str = "") -> Instance:
    return Instance(name, place, phase, 1.0, wanted or place.stage)


def test_replicas_there_and_wanted(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.signals.instances = [
        instance("encoder-0", ENCODER, Phase.READY),
        instance("dit-0", DIT, Phase.READY),
        instance("dit-1", DIT, Phase.DRAINING, "decoder"),
        instance("dit-2", DIT, Phase.DRAINING),
        instance("decoder-0", DECODER, Phase.STARTING),
    ]
    world.waiting.append(DECODER)
    world.export()
    there = {k: v for k, v in world.read("replicas", "stage", "state").items() if v}
    assert there == {
        ("encoder", "ready"): 1, ("dit", "ready"): 1, ("dit", "draining"): 2,
        ("decoder", "starting"): 1, ("decoder", "waiting"): 1,
    }  # fmt: skip
    # The one that changes its stage is wanted where it goes, the one that leaves nowhere.
    wanted = {("encoder",): 1, ("dit",): 1, ("decoder",): 3}
    assert world.read("desired_replicas", "stage") == wanted
    # A DiT takes two, also while it drains; who waits takes none.
    assert world.read("pool_accelerators", "pool", "state") == {
        ("a", "usable"): 8, ("a", "held"): 1 + 3 * 2 + 1,
    }  # fmt: skip


def test_more_than_the_budget_is_not_usable(tmp_path: Path) -> None:
    world = World(tmp_path, budget=6)
    world.export()
    assert world.read("pool_accelerators", "state")["usable",] == 6


def test_what_was_just_decided_is_wanted(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.signals.instances = [instance(f"dit-{number}", DIT, Phase.READY) for number in range(3)]
    world.export(Move(DIT, DECODER), Move(None, ENCODER, 2), Move(DIT, None))
    wanted = {("encoder",): 2, ("dit",): 1, ("decoder",): 1}
    assert world.read("desired_replicas", "stage") == wanted
    assert world.read("replicas", "stage", "state")["dit", "ready"] == 3


def test_the_model_before_and_after_a_fit_and_when_its_fit_has_gone(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.export()
    assert set(world.read("model_version", "stage").values()) == {0}
    assert set(world.read("model_samples", "stage").values()) == {0}
    assert set(world.read("model_correction_ratio", "stage").values()) == {1}
    assert world.read("model_error_ratio", "stage") == {}

    chance = random.Random(0)
    for number in range(200):
        shape = Shape(num_inference_steps=1 + number % 8)
        seconds = 6.0 * shape.num_inference_steps * chance.uniform(0.99, 1.01)
        sample = Sample("dit", "a", shape, seconds, None, number * 0.1)
        world.learner.observe(sample, now=number * 0.1, incarnation="one")
    world.export()
    corrections = world.read("model_correction_ratio", "stage")
    assert corrections["dit",] > 2.5, "three times as slow as the profile says"
    assert world.read("model_samples", "stage")["dit",] > 40
    assert world.read("model_version", "stage")["dit",] == 0

    shape = Shape()
    fit = FittedPair(
        seconds=CostModel(per_step=6.0), p95_ratio=1.0, samples=180, error=0.0075,
        lowest=shape.features, highest=shape.features, version=1, fitted_at=30.0, confirmed_at=30.0,
    )  # fmt: skip
    tracker = world.learner._tracker
    tracker.adopt(PerformanceModel(PROFILE, {("dit", "a"): fit}, version=1), now=30.0)
    world.export()
    assert world.read("model_version", "stage")["dit",] == 1
    assert world.read("model_error_ratio", "stage") == {("dit",): 0.0075}
    assert world.read("model_correction_ratio", "stage")["dit",] == 1.0

    tracker.adopt(PerformanceModel(PROFILE, version=2), now=40.0)
    world.export()
    assert world.read("model_error_ratio", "stage") == {}, "not left at its last value"
