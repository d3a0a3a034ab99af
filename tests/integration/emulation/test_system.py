"""A small emulated system: real processes, gRPC and transport, and no torch anywhere."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

from disagfusion.client import Client, GenerationResult, JobState, Stage
from disagfusion.emulation.accelerator import GIB, MIB
from disagfusion.errors import InvalidArgumentError, JobCancelledError, JobFailedError
from disagfusion.local import LocalRuntime

pytestmark = pytest.mark.timeout(300)

PROFILE = Path(__file__).with_name("profile.yaml")
SCALE = 0.02
DEVICES = {"encoder": "emulated:quick", "dit": "emulated:quick", "decoder": "emulated:quick"}


@pytest.fixture(scope="module")
def runtime() -> Iterator[LocalRuntime]:
    with LocalRuntime(
        profile=PROFILE,
        device={**DEVICES, "dit-1": "emulated:slow"},
        dits=2,
        time_scale=SCALE,
        transport="tcp",
    ) as running:
        yield running


@pytest.fixture(scope="module")
def client(runtime: LocalRuntime) -> Iterator[Client]:
    with Client(runtime.address, timeout=60.0) as client:
        yield client


def said_by(result: GenerationResult) -> list[str]:
    """The text in a job's picture."""
    (output,) = result.outputs
    with Image.open(io.BytesIO(output.content)) as picture:
        return str(picture.info["emulated"]).splitlines()


def test_jobs_take_the_profiles_time_and_bytes(client: Client) -> None:
    handles = [
        client.submit("p", seed=seed, height=1000, width=500, num_inference_steps=4)
        for seed in range(8)
    ]
    results = [handle.result() for handle in handles]
    workers = []
    for handle, result in zip(handles, results, strict=True):
        encoder, dit, decoder = result.stages
        assert [r.stage for r in result.stages] == [Stage.ENCODER, Stage.DIT, Stage.DECODER]
        assert {r.outcome for r in result.stages} == {"done"}
        assert (encoder.device, decoder.device) == ("emulated:quick", "emulated:quick")
        assert dit.device == {"dit-0": "emulated:quick", "dit-1": "emulated:slow"}[dit.worker]
        workers.append(dit.worker)
        step = 2 if dit.worker == "dit-0" else 3
        assert encoder.compute_seconds >= SCALE * 1
        assert dit.compute_seconds >= SCALE * (1 + 4 * step)
        assert dit.steps == 4
        assert (encoder.bytes_out, dit.bytes_out) == (
            round(SCALE * 40 * MIB), round(SCALE * 15 * MIB),
        )  # fmt: skip
        # The link is not scaled. What a slow DiT sends is held up by the decoder's own.
        assert dit.receive_seconds >= 0.99 * encoder.bytes_out / (0.0625 * GIB)
        assert decoder.receive_seconds >= 0.99 * dit.bytes_out / (0.0625 * GIB)
        assert said_by(result) == [
            "emulated on quick, 1 of 1", "500 x 1000, 4 steps", f"seed {result.seed}",
            f"job {handle.id}",
        ]  # fmt: skip
    assert set(workers) == {"dit-0", "dit-1"}
    assert len({result.outputs[0].content for result in results}) == 8


def test_a_job_reports_its_steps_and_states(client: Client) -> None:
    handle = client.submit("p", num_inference_steps=3)
    events = list(handle.events())
    states = [event.state for event in events]
    ran = [JobState.ENCODING, JobState.DENOISING, JobState.DECODING, JobState.SUCCEEDED]
    assert [s for s in dict.fromkeys(states) if s is not JobState.QUEUED] == ran
    steps = [e.progress.step for e in events if e.progress and e.progress.stage is Stage.DIT]
    assert steps == sorted(steps)
    assert steps[-1] == 3


def test_a_job_that_is_too_large_runs_out_of_memory(client: Client) -> None:
    # 4 + 3 · 4 GiB, and there are 10.
    handle = client.submit("p", height=2000, width=2000)
    with pytest.raises(JobFailedError) as failed:
        handle.result()
    assert failed.value.metadata["cause"] == "OUT_OF_MEMORY"
    assert "the dit of a job of this shape takes 16 GiB" in failed.value.message
    outcomes = [r.outcome for r in handle.job.stages if r.stage is Stage.DIT]
    assert set(outcomes) == {"out_of_memory"}
    assert client.generate("p").images


def test_a_job_is_cancelled_between_two_steps(client: Client) -> None:
    handle = client.submit("p", num_inference_steps=1000)
    for event in handle.events():
        if event.progress is not None and event.progress.step >= 2:
            break
    assert handle.cancel().state is JobState.CANCELLED
    with pytest.raises(JobCancelledError):
        handle.result()
    # Both DiTs are free again.
    later = [client.submit("p") for _ in range(4)]
    assert {entry.result().stages[1].worker for entry in later} == {"dit-0", "dit-1"}


def test_the_gateway_judges_requests(client: Client) -> None:
    spec = client.pipeline().spec
    assert (spec.family, client.pipeline().name) == ("emulated", "emulated-profile")
    for field, asked in {
        "height": {"height": 0},
        "num_frames": {"num_frames": 5000},
        "guidance_scale": {"guidance_scale": 2.0},
    }.items():
        with pytest.raises(InvalidArgumentError) as refused:
            client.generate("p", **asked)  # type: ignore[arg-type]
        assert refused.value.field == field


def test_no_process_has_torch(client: Client, runtime: LocalRuntime) -> None:
    engines = {record.pid for record in client.generate("p").stages}
    (supervisor,) = {psutil.Process(entry.pid).ppid() for entry in runtime.status()}
    everyone = [supervisor, *(c.pid for c in psutil.Process(supervisor).children(recursive=True))]
    # Supervisor, fork server, gateway, four fronts and their engines.
    assert len(everyone) == 11
    assert engines < set(everyone)
    for pid in everyone:
        maps = Path(f"/proc/{pid}/maps").read_text()
        assert "python" in maps
        assert not [name for name in ("torch", "cuda", "numpy") if name in maps]
