"""A change of stage in place with real engines: bit for bit what the unsplit pipeline draws."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from disagfusion.balancing.actuator import LocalActuator
from disagfusion.balancing.control import SupervisorControl
from disagfusion.balancing.instances import Phase
from disagfusion.balancing.learner import Learner
from disagfusion.balancing.signals import EmbeddedSignals
from disagfusion.client import Client, Stage
from disagfusion.local import Balance, LocalRuntime
from disagfusion.local.deployment import DIGITS
from disagfusion.scheduling.decision import Decision, Move, Place, Reason
from disagfusion.scheduling.observation import Fresh
from disagfusion.scheduling.profile import Profile

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[3]
SMALL = {"height": 64, "width": 64, "num_inference_steps": 4, "max_sequence_length": 32}
PROMPTS = ("a handwritten seven in red", "a handwritten three in blue")
PROFILE = Profile.model_validate(
    {
        "pools": {"cpu": {"accelerators": 4}},
        "stages": {
            "encoder": {"pools": {"cpu": {"seconds": 1}}},
            "dit": {"pools": {"cpu": {"seconds": 1}}},
            "decoder": {"pools": {"cpu": {"seconds": 1}}},
        },
    }
)
NAMES = ("encoder-0", "dit-0", "dit-1", "decoder-0")


@pytest.fixture(scope="module")
def runtime(forked: None) -> Iterator[LocalRuntime]:
    # The balancer itself decides nothing: the test does.
    balance = Balance(PROFILE, settings={"paused": True, "period": 0.5})
    with LocalRuntime(dits=2, threads=1, transport="tcp", balance=balance) as running:
        yield running


@pytest.fixture(scope="module")
def unsplit(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """What diffusers' own modular pipeline draws, in a process without this project."""
    directory = tmp_path_factory.mktemp("unsplit")
    jobs = [{"prompt": p, "seed": seed, **SMALL} for seed, p in enumerate(PROMPTS)]
    request = directory / "request.json"
    request.write_text(json.dumps({"model": str(DIGITS), "threads": 1, "jobs": jobs}))
    script = ROOT / "examples" / "demo" / "reference.py"
    subprocess.run(
        [sys.executable, str(script), str(request), str(directory)],
        check=True, capture_output=True, timeout=240,
    )  # fmt: skip
    return [np.asarray(Image.open(directory / f"modular-{i}.png")) for i in range(len(jobs))]


def draw(client: Client) -> tuple[list[np.ndarray], set[str]]:
    """Draw every picture twice; return them, and who decoded."""
    given = {name: value for name, value in SMALL.items() if name != "max_sequence_length"}
    parameters = {"max_sequence_length": SMALL["max_sequence_length"]}
    handles = [
        client.submit(prompt, seed=seed, parameters=parameters, **given)  # type: ignore[arg-type]
        for _ in range(2)
        for seed, prompt in enumerate(PROMPTS)
    ]
    results = [handle.result() for handle in handles]
    pictures = [np.asarray(Image.open(io.BytesIO(r.outputs[0].content))) for r in results]
    decoders = {s.worker for r in results for s in r.stages if s.stage is Stage.DECODER}
    return pictures, decoders


def parts(runtime: LocalRuntime) -> tuple[EmbeddedSignals, LocalActuator]:
    directory = Path(runtime.internal_address.removeprefix("unix:")).parent
    addresses = {name: f"unix:{directory}/{name}.sock" for name in NAMES}
    pools = dict.fromkeys(NAMES, "cpu")
    control = SupervisorControl(str(directory / "control"), 10.0)
    learner = Learner(PROFILE)
    waiting: list[Place] = []
    signals = EmbeddedSignals(
        runtime.internal_address, control, PROFILE, pools, learner, waiting,
        time_scale=1.0, patience=10.0, stale_after=30.0,
    )  # fmt: skip
    actuator = LocalActuator(
        signals, control, PROFILE, addresses, pools, learner, waiting,
        budget=4, time_scale=1.0, patience=10.0, tls=None,
    )  # fmt: skip
    return signals, actuator


async def test_a_dit_becomes_a_decoder_and_draws_the_same(
    runtime: LocalRuntime, unsplit: list[np.ndarray]
) -> None:
    signals, actuator = parts(runtime)
    with Client(runtime.address, timeout=120.0) as client:
        pictures, decoders = draw(client)
        assert decoders == {"decoder-0"}
        observation = await signals.observe(0.0)
        assert observation.replicas["dit"]["cpu"].ready == 2
        assert isinstance(observation.jobs, Fresh)
        move = Move(Place("dit", "cpu"), Place("decoder", "cpu"))
        await actuator.carry_out(Decision(1.0, (move,), Reason.REBALANCE), 1.0)
        now = 1.0
        while [one.phase for one in signals.instances if one.place.stage == "decoder"] != (
            [Phase.READY] * 2
        ):
            now += 1.0
            observation = await signals.observe(now)
            assert sum(r.held for p in observation.replicas.values() for r in p.values()) == 4
            await actuator.carry_out(Decision(now, (), Reason.BALANCED), now)
        (changed,) = [
            p.name for p in runtime.status() if p.role == "decoder" and p.name != "decoder-0"
        ]
        # Until the new decoder has had its turn.
        again: list[np.ndarray] = []
        who: set[str] = set()
        while changed not in who:
            again, who = draw(client)
            for index, picture in enumerate(again):
                assert np.array_equal(picture, unsplit[index % len(unsplit)])
    for index, picture in enumerate(pictures):
        assert np.array_equal(picture, unsplit[index % len(unsplit)])
    assert len(again) == 2 * len(unsplit)
