"""What is known of how long stages take."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.scaling.bounds import bounds_at
from disagfusion_operator.scaling.fleet import Phase, Pod
from disagfusion_operator.scaling.gateways import Correspondent, Door, Gateways, remaining
from disagfusion_operator.scaling.knowledge import FIRST_JOBS, Knowledge
from disagfusion_operator.scaling.profiles import read_profile

from disagfusion.errors import UnavailableError
from disagfusion.scheduling.decision import Place
from disagfusion.v1 import fleet_pb2

from .members import BEGIN, pool, profile

SPEC = Spec.model_validate(
    {"model": {"builtin": "digits"}, "pools": {"a": pool("a"), "b": pool("b", speed="0.5")}}
)
BOUNDS = bounds_at(SPEC, 0.0)
DIT = Place("dit", "a")
SECONDS = {1: 1.0, 2: 6.0, 3: 2.0}


def told(count: int, factor: float = 1.0, steps: int = 4) -> fleet_pb2.GetFleetResponse:
    answer = fleet_pb2.GetFleetResponse(incarnation="g", samples_cursor=count)
    for number in range(count):
        for stage, seconds in SECONDS.items():
            sample = answer.samples.add(
                stage=stage, pool="a", compute_seconds=factor * seconds, worker=f"w{number}"
            )
            shape(sample.shape, steps)
    return answer


def shape(message: fleet_pb2.JobShape, steps: int = 4) -> None:
    message.height = message.width = 512
    message.num_frames = message.batch_size = message.sequence_length = 1
    message.num_inference_steps = steps


async def test_the_first_jobs_are_the_first_profile() -> None:
    known = Knowledge(None, contextlib.nullcontext())
    assert known.lacking == ("encoder", "dit", "decoder")
    assert known.profile(SPEC, BOUNDS) is None
    known.teach([told(FIRST_JOBS)], SPEC, 10.0)
    assert not known.lacking
    found = known.profile(SPEC, BOUNDS)
    assert found is not None
    assert found.stages["dit"].pools["a"].seconds == 6.0
    # Nothing ran there yet: its speed says how long it would take.
    assert found.stages["dit"].pools["b"].seconds == 12.0
    assert abs(known.speed(found, DIT, 10.0) - 1 / 6.0) < 0.02


async def test_jobs_correct_what_people_measured() -> None:
    given = read_profile(profile("a", encoder=1.0, dit=3.0, decoder=2.0)["inline"])
    known = Knowledge(given, contextlib.nullcontext())
    found = known.profile(SPEC, BOUNDS)
    assert found is not None
    assert abs(known.speed(found, DIT, 0.0) - 1 / 3.0) < 1e-9
    for number in range(1, 5):
        known.teach([told(4)], SPEC, 10.0 * number)
    assert known.speed(found, DIT, 50.0) < 1 / 5.0
    rows = {(row.stage, row.pool): row for row in known.summary(50.0)}
    assert rows["dit", "a"].correction > 1.5
    await known.aclose()


async def test_shapes_of_jobs_are_the_mix() -> None:
    known = Knowledge(None, contextlib.nullcontext())
    answer = fleet_pb2.GetFleetResponse()
    for steps in (10, 10, 20):
        shape(answer.jobs.add(stage=2).shape, steps)
    shape(answer.arrived.add(count=3).shape, 20)
    known.teach([answer], SPEC, 1.0)
    assert {one.num_inference_steps: one.weight for one in known.mix} == {10: 2.0, 20: 4.0}
    # Without jobs it is as it was last.
    known.teach([fleet_pb2.GetFleetResponse()], SPEC, 2.0)
    assert len(known.mix) == 2


def started(seconds: float, name: str = "p", place: Place = DIT) -> Pod:
    return Pod(name, name, place, Phase.READY, BEGIN, ready_at=BEGIN + seconds, node="n")


def test_starts_are_measured_once_for_each_pod() -> None:
    given = read_profile(profile("a", encoder=1.0, dit=3.0, decoder=2.0)["inline"])
    known = Knowledge(given, contextlib.nullcontext())
    found = known.profile(SPEC, BOUNDS)
    assert known.start_seconds(DIT, found, 1.0) == 30.0
    for _ in range(5):
        known.watch(started(100.0))
    known.watch(started(10.0, "q"))
    known.watch(started(20.0, "r"))
    assert known.start_seconds(DIT, found, 1.0) == 20.0
    # Where none has started yet, those of the same stage elsewhere are the best guess.
    assert known.start_seconds(Place("dit", "b"), found, 1.0) == 20.0
    assert known.start_seconds(Place("encoder", "a"), found, 1.0) == 30.0


def test_the_profile_says_how_long_a_start_takes_before_one_was_seen() -> None:
    inline = profile("a", encoder=1.0, dit=3.0, decoder=2.0)["inline"]
    inline["pools"]["a"]["start_seconds"] = 40.0
    known = Knowledge(read_profile(inline), contextlib.nullcontext())
    found = known.profile(SPEC, BOUNDS)
    assert known.start_seconds(DIT, found, 1.0) == 40.0
    assert known.start_seconds(DIT, found, 0.1) == 4.0


def test_a_change_of_stage_is_no_start() -> None:
    known = Knowledge(None, contextlib.nullcontext())
    given = read_profile(profile("a", encoder=1.0, dit=6.0, decoder=1.0)["inline"])
    known.watch(started(12.0))
    known.watch(dataclasses.replace(started(900.0, "q"), changed_at=BEGIN + 890.0))
    assert known.start_seconds(DIT, given, 1.0) == 12.0
    before = known.change_seconds(DIT, given, 1.0)
    assert before == 30.0  # the profile does not say how long it loads
    for seconds in (2.0, 4.0, 3.0):
        known.changed(DIT, seconds)
    assert known.change_seconds(DIT, given, 1.0) == 3.0
    assert known.start_seconds(DIT, given, 1.0) == 12.0


def test_whoever_works_has_some_seconds_left() -> None:
    given = read_profile(profile("a", encoder=1.0, dit=6.0, decoder=2.0)["inline"])
    known = Knowledge(given, contextlib.nullcontext())
    found = known.profile(SPEC, BOUNDS)
    assert found is not None
    answer = fleet_pb2.GetFleetResponse()
    for worker, elapsed in (("w1", 2.0), ("w2", 9.0), ("stranger", 1.0), ("", 0.0)):
        shape(answer.jobs.add(stage=2, worker=worker, elapsed_seconds=elapsed).shape)
    predictor = known.predictor(found, 0.0)
    pools = {"w1": "a", "w2": "a", "idle": "a"}
    assert remaining([answer], pools, predictor, 1.0) == {"w1": 4.0, "w2": 0.0}
    assert remaining([answer], pools, predictor, 2.0) == {"w1": 10.0, "w2": 3.0}


class Scripted(Gateways):
    def __init__(self) -> None:
        self.asked: list[tuple[str, str, int]] = []
        self.away: set[str] = set()

    async def fleet(self, door: Door, request: Any, seconds: float) -> fleet_pb2.GetFleetResponse:
        self.asked.append((door.address, request.incarnation, request.samples_cursor))
        if door.address in self.away:
            raise UnavailableError("nobody is there")
        return fleet_pb2.GetFleetResponse(incarnation=door.address, samples_cursor=5)

    async def record(
        self, door: Door, request: fleet_pb2.RecordDecisionRequest, seconds: float
    ) -> None:
        raise AssertionError("nothing is decided here")


async def test_each_gateway_is_asked_for_what_is_new() -> None:
    gateways = Scripted()
    asks = Correspondent(gateways)
    both = [Door("g1", "token"), Door("g2", "token")]
    assert len(await asks.ask(both, 1.0)) == 2
    gateways.away = {"g2"}
    gateways.asked.clear()
    assert len(await asks.ask(both, 1.0)) == 1
    assert gateways.asked == [("g1", "g1", 5), ("g2", "g2", 5)]
    # One that was gone may be another when it comes back.
    await asks.ask(both[:1], 1.0)
    gateways.asked.clear()
    await asks.ask(both, 1.0)
    assert gateways.asked == [("g1", "g1", 5), ("g2", "", 0)]
    assert "token" not in repr(both[0])
