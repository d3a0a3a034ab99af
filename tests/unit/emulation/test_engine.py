"""Emulated engines on a clock that the test turns."""

from __future__ import annotations

import io
from typing import Any

import pytest
from emulationkit import Bench, denoised, encoded, profile, written
from PIL import Image

from disagfusion.emulation.accelerator import MIB
from disagfusion.emulation.content import Content, WrongBytesError
from disagfusion.errors import (
    DataLossError,
    FailedPreconditionError,
    InvalidArgumentError,
    JobCancelledError,
)
from disagfusion.pipeline.stages import Stage
from disagfusion.stage.engine_port import Result
from disagfusion.stage.request import request_values
from disagfusion.v1 import generation_pb2, stage_pb2


def test_weights_take_their_time() -> None:
    bench = Bench(Stage.DIT)
    assert bench.loaded_at == pytest.approx(100 + 3 + 10 / 2)
    assert Bench(Stage.DIT, time_scale=0.1).loaded_at == pytest.approx(100.8)
    assert Bench(Stage.ENCODER, "large").loaded_at == pytest.approx(100 + 6 / 4)


def test_a_stage_takes_the_place_of_another() -> None:
    bench = Bench(Stage.ENCODER)
    bench.engine.load_stage(Stage.DECODER)
    assert bench.engine.stage is Stage.DECODER
    assert bench.clock.time == pytest.approx(bench.loaded_at + 3 + 0.5)
    assert bench.engine.run(bench.task(denoised())).media


def test_weights_that_do_not_fit_are_not_loaded() -> None:
    bench = Bench(Stage.ENCODER)
    too_large = profile()
    too_large = too_large.model_copy(
        update={
            "stages": {
                **too_large.stages,
                "dit": too_large.stages["dit"].model_copy(update={"weights_gib": 17.0}),
            }
        }
    )
    with pytest.raises(FailedPreconditionError, match=r"dit take 17 GiB.* small has 16 GiB"):
        Bench(Stage.DIT, made_of=too_large)
    assert Bench(Stage.ENCODER, made_of=too_large).engine.stage is Stage.ENCODER
    with pytest.raises(InvalidArgumentError, match="the decoder is on large"):
        Bench(Stage.DECODER, "large")
    assert bench.engine.stage is Stage.ENCODER


def test_a_job_takes_what_the_profile_says_of_its_shape() -> None:
    assert Bench(Stage.ENCODER).seconds(Bench(Stage.ENCODER).task()) == pytest.approx(5)
    bench = Bench(Stage.DIT)
    assert bench.seconds(bench.task(encoded())) == pytest.approx(2 + 3 * 4)
    assert bench.seconds(bench.task(encoded(), num_inference_steps=1)) == pytest.approx(2 + 3)
    two = {"num_images_per_prompt": 2, "height": 500}
    assert bench.seconds(bench.task(encoded(**two), **two)) == pytest.approx(2 + 3 * 4)
    scaled = Bench(Stage.ENCODER, time_scale=0.01)
    assert scaled.seconds(scaled.task()) == pytest.approx(0.05)


def test_what_is_left_out_is_the_default() -> None:
    bench = Bench(Stage.DIT)
    spec = bench.engine.spec
    asked = {"prompt": "p", "height": 1000}
    spec.validate(asked)
    assert spec.complete(asked)["width"] == 512
    assert spec.complete(asked)["num_inference_steps"] == 1
    for wrong in ({"guidance_scale": 2.0}, {"height": 0}, {"num_frames": "x"}, {"prompt": " "}):
        with pytest.raises(InvalidArgumentError):
            spec.validate({**asked, **wrong})


def test_lateness_does_not_add_up() -> None:
    bench = Bench(Stage.DIT, late=0.25)
    task = bench.task(encoded())
    begin = bench.clock.time
    bench.engine.run(task)
    wanted = [begin + 14 * step / 4 for step in (1, 2, 3, 4)]
    assert [at for _, _, at in bench.steps] == pytest.approx([at + 0.25 for at in wanted])
    assert [(step, of) for step, of, _ in bench.steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert task.compute_seconds == pytest.approx(14.25)


def test_a_dit_stops_between_two_steps() -> None:
    bench = Bench(Stage.DIT)
    task = bench.task(encoded(), cancelled=lambda: len(bench.steps) == 2)
    with pytest.raises(JobCancelledError):
        bench.engine.run(task)
    assert len(bench.steps) == 2
    assert task.compute_seconds == pytest.approx(7)


def test_noise_is_the_jobs_own() -> None:
    quiet, noisy = Bench(Stage.ENCODER), Bench(Stage.ENCODER, time_noise=0.2)
    times = {job: noisy.seconds(noisy.task(job_id=job)) for job in map(str, range(50))}
    assert len(set(times.values())) > 45
    assert all(4 <= seconds <= 6 for seconds in times.values())
    assert min(times.values()) < 4.4
    assert max(times.values()) > 5.6
    again = Bench(Stage.ENCODER, time_noise=0.2)
    # The clock's sums are rounded.
    assert again.seconds(again.task(job_id="7")) == pytest.approx(times["7"])
    assert quiet.seconds(quiet.task(job_id="7")) == pytest.approx(5)


def test_a_job_that_is_too_large_runs_out_of_memory() -> None:
    bench = Bench(Stage.DIT)
    large = {"height": 1300, "width": 1200}
    begin = bench.clock.time
    with pytest.raises(
        MemoryError, match=r"emulated small .* dit .* 16\.24 GiB, .* 16 GiB"
    ) as error:
        bench.engine.run(bench.task(encoded(**large), **large))
    kind, ends = bench.engine.classify(error.value)
    assert (kind, ends) == (stage_pb2.FAILURE_KIND_OUT_OF_MEMORY, True)
    assert bench.clock.time == begin
    assert bench.seconds(bench.task(encoded(), height=1000)) > 0
    unbounded = Bench(Stage.DIT, "large")
    assert unbounded.seconds(unbounded.task(encoded(**large), **large)) > 0


def test_outputs_have_the_profiles_size() -> None:
    assert encoded().payload.nbytes == 4 * MIB
    assert denoised(height=500).payload.nbytes == MIB
    tenth = Bench(Stage.ENCODER, time_scale=0.1)
    assert tenth.engine.run(tenth.task()).payload.nbytes == round(0.4 * MIB)
    tiny = Bench(Stage.ENCODER, time_scale=1e-9)
    assert tiny.engine.run(tiny.task()).payload.nbytes == 64


@pytest.mark.parametrize("place", [0, 7, 8, 65536, 65543, 3_000_000, 4 * MIB - 1])
def test_a_wrong_byte_is_found(place: int) -> None:
    bench, result = Bench(Stage.DIT), encoded()
    memory = written(result)
    task = bench.task()
    task.inputs = bench.engine.read(memory, result.payload.tensors, result.payload.structure)
    assert bench.engine.run(task).payload.nbytes
    memory[place] ^= 1
    with pytest.raises(
        WrongBytesError, match=f"emulated encoder .* job j: byte {place} of"
    ) as error:
        bench.engine.run(task)
    assert bench.engine.classify(error.value)[0] == stage_pb2.FAILURE_KIND_INTERNAL


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (lambda: encoded("other"), "byte 8 of"),
        (lambda: Result(Content("j", Stage.DIT, 4 * MIB, {})), "byte 8 of"),
        (lambda: denoised(), "2097152 bytes came instead of 4194304"),
    ],
    ids=["another job's", "another stage's", "of another size"],
)
def test_bytes_that_were_meant_for_others_are_found(inputs: Any, message: str) -> None:
    bench = Bench(Stage.DIT)
    with pytest.raises(WrongBytesError, match=message):
        bench.engine.run(bench.task(inputs()))


def test_segments_that_changed_places_are_found() -> None:
    bench, result = Bench(Stage.DIT), encoded()
    memory = written(result)
    first = bytes(memory[:65536])
    memory[:65536], memory[65536 : 2 * 65536] = memory[65536 : 2 * 65536], first
    task = bench.task()
    task.inputs = bench.engine.read(memory, result.payload.tensors, result.payload.structure)
    with pytest.raises(WrongBytesError, match="byte 5 of"):
        bench.engine.run(task)


def test_what_no_emulated_stage_made_is_refused() -> None:
    bench, result = Bench(Stage.DIT), encoded()
    memory = written(result)
    for structure in (b"", b"[]", b"{}", b'{"emulated": 1}', b"\xff"):
        with pytest.raises(DataLossError):
            bench.engine.read(memory, result.payload.tensors, structure)
    with pytest.raises(DataLossError):
        bench.engine.read(memory, (), result.payload.structure)
    with pytest.raises(DataLossError):
        bench.engine.run(bench.task())


@pytest.mark.parametrize(
    ("chosen", "kind"),
    [
        (generation_pb2.OUTPUT_FORMAT_UNSPECIFIED, "png"),
        (generation_pb2.OUTPUT_FORMAT_JPEG, "jpeg"),
        (generation_pb2.OUTPUT_FORMAT_WEBP, "webp"),
    ],
)
def test_a_decoder_returns_pictures(chosen: Any, kind: str) -> None:
    bench = Bench(Stage.DECODER)
    asked = {"num_images_per_prompt": 2, "num_frames": 5, "height": 100}
    task = bench.task(denoised(**asked), **asked)
    task.generation.output_format = chosen
    result = bench.engine.run(task)
    files = bytes(written(result))
    pictures = []
    for index, media in enumerate(result.media):
        assert (media.index, media.content_type) == (index, f"image/{kind}")
        content, files = files[: media.size_bytes], files[media.size_bytes :]
        with Image.open(io.BytesIO(content)) as picture:
            assert picture.size == (media.width, media.height)
            assert picture.convert("L").getextrema()[1] > 200
            pictures.append((content, dict(getattr(picture, "text", {}))))
    assert len(pictures) == 2
    assert not files
    assert pictures[0] != pictures[1]
    if kind == "png":
        said = pictures[1][1]["emulated"]
        assert said == "emulated on small, 2 of 2\n1000 x 100, 5 frames, 4 steps\nseed 7\njob j"


def test_it_says_that_it_is_emulated() -> None:
    bench = Bench(Stage.DIT)
    assert bench.engine.device.name == "emulated:small"
    assert bench.engine.spec.family == "emulated"
    assert bench.engine.spec.version.startswith("emulated-")
    other = Bench(Stage.DIT, time_scale=0.5)
    assert other.engine.spec.version != bench.engine.spec.version
    assert Bench(Stage.ENCODER).engine.spec == bench.engine.spec


def monolith(pool: dict[str, Any], **changes: Any) -> Any:
    stages = {
        name: {"weights_gib": weights, "pools": {"p": {"seconds": seconds, "memory_gib": peak}}}
        for name, weights, seconds, peak in (
            ("encoder", 6, 5, 7), ("dit", 10, 20, 14), ("decoder", 1, 4, 9),
        )
    }  # fmt: skip
    return profile(pools={"p": {"accelerators": 1, **pool}}, stages=stages, **changes)


LOADS = {"load_gib_per_second": 2, "start_seconds": 3}


def passed_on(bench: Bench) -> Result:
    encoder = Bench(Stage.ENCODER, "p", monolith="resident", made_of=bench.accelerator.profile)
    begin = encoder.clock.time
    result = encoder.engine.run(encoder.task())
    assert (encoder.loaded_at, encoder.clock.time) == (100, begin)
    assert encoder.engine.device.name == "emulated:p (passes on)"
    assert result.payload.nbytes == 64
    return result


def test_a_resident_monolith_holds_and_takes_everything() -> None:
    bench = Bench(
        Stage.DIT, "p", monolith="resident", made_of=monolith({"memory_gib": 25, **LOADS})
    )
    assert bench.loaded_at == pytest.approx(100 + 3 + 17 / 2)
    assert bench.seconds(bench.task(passed_on(bench))) == pytest.approx(29)
    assert bench.engine.device.name == "emulated:p (resident monolith)"
    assert [(step, of) for step, of, _ in bench.steps] == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_resident_monolith_must_fit() -> None:
    with pytest.raises(FailedPreconditionError, match="17 GiB"):
        Bench(Stage.DIT, "p", monolith="resident", made_of=monolith({"memory_gib": 16.5}))
    bench = Bench(Stage.DIT, "p", monolith="resident", made_of=monolith({"memory_gib": 24}))
    # The decoder's peak of 9 GiB beside the 16 GiB of the others' weights.
    with pytest.raises(MemoryError, match=r"decoder .* 25 GiB, there are 24 GiB"):
        bench.engine.run(bench.task(passed_on(bench)))


def test_an_offloading_monolith_loads_for_every_job() -> None:
    bench = Bench(
        Stage.DIT, "p", monolith="offloading", made_of=monolith({"memory_gib": 14, **LOADS})
    )
    assert bench.loaded_at == pytest.approx(103)
    assert bench.seconds(bench.task(passed_on(bench))) == pytest.approx(29 + 17 / 2)
    with pytest.raises(FailedPreconditionError, match="10 GiB"):
        Bench(Stage.DIT, "p", monolith="offloading", made_of=monolith({"memory_gib": 9}))


def test_a_monolith_that_was_measured_is_taken_as_measured() -> None:
    measured = {"offloading": {"pool": "p", "seconds_ratio": 1.5, "extra_seconds": 100}}
    made_of = monolith({"memory_gib": 14, **LOADS}, monoliths=measured)
    bench = Bench(Stage.DIT, "p", monolith="offloading", made_of=made_of, time_scale=0.1)
    assert bench.seconds(bench.task(passed_on(bench))) == pytest.approx(0.1 * (1.5 * 29 + 100))


def test_requests_are_read_as_gateways_read_them() -> None:
    task = Bench(Stage.DIT).task(num_frames=9)
    assert request_values(task.generation)["num_frames"] == 9
