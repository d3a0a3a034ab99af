"""The running balancer calibrates itself, elsewhere and within bounds."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from structlog.testing import capture_logs

from disagfusion.balancing.calibrator import Calibrator, replay
from disagfusion.balancing.child import compute
from disagfusion.balancing.replay import ReplayAnswer, ReplayRequest
from disagfusion.errors import DeadlineExceededError, UnavailableError
from disagfusion.scheduling.balancer.settings import BalancerSettings
from disagfusion.scheduling.observation import Fresh, Observation, Replicas
from disagfusion.scheduling.performance.model import PerformanceModel
from disagfusion.scheduling.predictors import ModelPredictor
from disagfusion.scheduling.profile import Profile
from disagfusion.scheduling.shapes import Shape
from disagfusion.simulation.calibration import CalibrationSettings
from disagfusion.telemetry.metrics import BalancerMetrics

PROFILE = Profile.model_validate(
    {
        "pools": {"a": {"accelerators": 8}},
        "stages": {
            "encoder": {"pools": {"a": {"seconds": 1}}},
            "dit": {"pools": {"a": {"model": {"per_step": 2}}}},
            "decoder": {"pools": {"a": {"seconds": 3}}},
        },
    }
)
SOON = CalibrationSettings(every=30.0, least_jobs=6)
BETTER = ReplayAnswer(parameters={"tolerance": 0.04}, gain=0.125, message="tolerance is better")
SAME = ReplayAnswer(message="nothing is better")


def seen(now: float, count: int = 3, predictor: ModelPredictor | None = None) -> Observation:
    return Observation(
        replicas={
            stage: {"a": Replicas(ready=ready)}
            for stage, ready in (("encoder", 1), ("dit", 6), ("decoder", 1))
        },
        jobs=Fresh((), now),
        arrived=Fresh({Shape(num_inference_steps=4): count}, now),
        loads={},
        accelerators={"a": 8},
        predictor=predictor,
    )


class World:
    def __init__(self, *answers: ReplayAnswer | Exception, **given: Any) -> None:
        self.registry = CollectorRegistry()
        self.clock, self.takes = 0.0, 0.0
        self.answers = list(answers)
        self.asked: list[ReplayRequest] = []
        self.calibrator = Calibrator(
            given.pop("settings", BalancerSettings()), given.pop("fixed", ()), PROFILE, 8,
            BalancerMetrics(self.registry, pipeline="p", reasons=[]),
            calibration=SOON, ask=self.answer, clock=lambda: self.clock, **given,
        )  # fmt: skip

    async def answer(self, request: ReplayRequest) -> ReplayAnswer:
        self.asked.append(request)
        self.clock += self.takes
        found = self.answers.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def look(self, now: float, **given: Any) -> None:
        self.calibrator.consider(seen(now, **given), now)
        # Whatever it began has its turn.
        for _ in range(5):
            await asyncio.sleep(0)

    def metric(self, name: str) -> float:
        text = generate_latest(self.registry).decode()
        (line,) = [x for x in text.splitlines() if x.startswith(f"disagfusion_balancer_{name}")]
        return float(line.rpartition(" ")[2])


async def test_what_is_clearly_better_is_adopted_logged_and_exported() -> None:
    world = World(BETTER, SAME)
    with capture_logs() as logs:
        for now in (10.0, 20.0, 30.0, 40.0):
            await world.look(now)
    (request,) = world.asked
    assert (len(request.jobs), request.budget, request.gain) == (12, 8, SOON.gain)
    assert request.initial == {"encoder": {"a": 1}, "dit": {"a": 6}, "decoder": {"a": 1}}
    assert request.settings == BalancerSettings()
    assert world.calibrator.settings == BalancerSettings(tolerance=0.04)
    assert world.calibrator.tuned == {"tolerance": 0.04}
    assert world.calibrator.news() == ("calibration: tolerance is better",)
    assert world.calibrator.news() == ()
    (log,) = logs
    assert (log["result"], log["before"], log["after"], log["gain"]) == (
        "adopted", {"tolerance": 0.02}, {"tolerance": 0.04}, 0.125,
    )  # fmt: skip
    assert world.metric('parameter{parameter="tolerance"') == 0.04
    assert world.metric("calibration_gain_ratio") == 0.125
    assert world.metric('calibrations_total{pipeline="p",result="adopted"}') == 1.0
    # From then on the next is tried beside these.
    await world.look(70.0)
    assert world.asked[1].settings == BalancerSettings(tolerance=0.04)
    assert world.metric('calibrations_total{pipeline="p",result="kept"}') == 1.0
    assert world.calibrator.settings == BalancerSettings(tolerance=0.04)


async def test_a_replay_that_fails_changes_nothing_and_is_logged() -> None:
    world = World(UnavailableError("it broke"), SAME)
    with capture_logs() as logs:
        for now in (10.0, 40.0):
            await world.look(now)
    assert [(log["log_level"], log["problem"]) for log in logs] == [("warning", "it broke")]
    assert world.calibrator.settings == BalancerSettings()
    assert world.metric('calibrations_total{pipeline="p",result="failed"}') == 1.0
    await world.look(70.0)
    assert len(world.asked) == 2


async def test_too_few_jobs_are_not_replayed() -> None:
    world = World()
    for now in (10.0, 40.0, 70.0):
        await world.look(now, count=1)
    assert world.asked == []


async def test_replays_take_a_tenth_of_the_time_at_most() -> None:
    world = World(SAME, SAME)
    world.takes = 6.0
    for now in (10.0, 40.0):
        await world.look(now)
    assert len(world.asked) == 1
    world.clock = 59.0
    await world.look(100.0)
    assert len(world.asked) == 1
    world.clock = 60.0
    await world.look(110.0)
    assert len(world.asked) == 2


async def test_one_at_a_time_and_it_ends_with_the_process() -> None:
    asked: list[ReplayRequest] = []
    ended = asyncio.Event()

    async def for_ever(request: ReplayRequest) -> ReplayAnswer:
        asked.append(request)
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return SAME

    world = World()
    world.calibrator = Calibrator(
        BalancerSettings(), (), PROFILE, 8,
        BalancerMetrics(CollectorRegistry(), pipeline="p", reasons=[]),
        calibration=SOON, ask=for_ever,
    )  # fmt: skip
    for now in (10.0, 40.0, 80.0, 120.0):
        await world.look(now)
    assert len(asked) == 1
    await world.calibrator.aclose()
    assert ended.is_set()


async def test_what_people_gave_and_what_is_out_of_bounds_stays() -> None:
    given = {"settings": BalancerSettings(tolerance=0.03), "fixed": ("tolerance", "period")}
    found = ReplayAnswer(
        parameters={"tolerance": 0.06, "forecast_horizon": 5000.0, "period": 1.0}, message="many"
    )
    world = World(found, **given)
    for now in (10.0, 40.0):
        await world.look(now)
    assert world.asked[0].fixed == ("period", "tolerance")
    assert world.calibrator.settings == BalancerSettings(tolerance=0.03)


def test_it_goes_on_with_what_was_found_before() -> None:
    tuned = {"tolerance": 0.04, "passing_tolerance": 9.0, "period": 1.0, "gone": 1.0}
    world = World(tuned=tuned)
    assert world.calibrator.settings == BalancerSettings(tolerance=0.04)
    assert world.metric('parameter{parameter="tolerance"') == 0.04


async def test_what_was_learned_of_the_stages_is_replayed() -> None:
    model = PerformanceModel(PROFILE).with_corrections({("decoder", "a"): 2.0})
    world = World(SAME)
    for now in (10.0, 40.0):
        await world.look(now, predictor=ModelPredictor(model))
    assert world.asked[0].profile.stages["decoder"].pools["a"].seconds_of(Shape()) == 6.0


async def test_a_replay_in_a_process_of_its_own() -> None:
    world = World(SAME)
    for now in range(10, 310, 10):
        await world.look(float(now))
    request = world.asked[0].model_copy(update={"gain": -1.0})
    answer = await replay(request)
    assert answer == request.answer()
    assert "jobs replayed" in answer.message
    # With a gain below zero whatever is best is taken.
    assert len(answer.parameters) == 1
    assert answer.parameters.items() <= {
        "tolerance": 0.04, "passing_tolerance": 0.1, "forecast_horizon": 360.0,
    }.items() | {"tolerance": 0.01, "forecast_horizon": 90.0}.items()  # fmt: skip


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    def write(code: str) -> str:
        (tmp_path / "computing.py").write_text(code)
        path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
        monkeypatch.setenv("PYTHONPATH", path)
        return "computing"

    return write


async def failure(work: Awaitable[bytes]) -> UnavailableError | DeadlineExceededError:
    with pytest.raises((UnavailableError, DeadlineExceededError)) as found:
        await work
    return found.value


async def test_computing_elsewhere_is_slow_to_take_the_processor(
    module: Callable[[str], str],
) -> None:
    name = module("import os, sys; print(sys.stdin.read(), os.nice(0))")
    expected = max(os.nice(0), 10)
    assert await compute(name, "hello", seconds=60.0) == f"hello {expected}\n".encode()


async def test_what_computes_too_long_is_killed(
    module: Callable[[str], str], tmp_path: Path
) -> None:
    pid = tmp_path / "pid"
    name = module(
        f"import os, time\nopen({str(pid)!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"
    )
    assert "longer than 5 s" in (await failure(compute(name, "", seconds=5.0))).message
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


async def test_what_takes_too_much_memory_ends(module: Callable[[str], str]) -> None:
    name = module("import sys\nsys.stdin.read()\nb = bytearray(1 << 30)")
    error = await failure(compute(name, "", seconds=60.0, memory_bytes=512 << 20))
    assert "MemoryError" in error.message


async def test_why_it_failed_is_said() -> None:
    error = await failure(compute("disagfusion.balancing.replay", "{}", seconds=60.0))
    assert "status 2" in error.message
    assert "request" in error.message
