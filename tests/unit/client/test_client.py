"""Both clients, with the mock transport that users have, too."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest
from PIL import Image

import disagfusion.client
from disagfusion.client import (
    AsyncClient,
    Client,
    GenerationResult,
    JobState,
    MockTransport,
    RetryPolicy,
    StageStatus,
    Submission,
)
from disagfusion.client.mock import MockAnswer
from disagfusion.errors import (
    AlreadyExistsError,
    DeadlineExceededError,
    DisagfusionError,
    FailedPreconditionError,
    InvalidArgumentError,
    JobCancelledError,
    JobFailedError,
    NotFoundError,
    UnavailableError,
)


def client_threads() -> list[str]:
    return [one.name for one in threading.enumerate() if one.name == "disagfusion-client"]


def test_a_picture_comes_back(tmp_path: Path) -> None:
    def draw(submission: Submission) -> MockAnswer:
        assert submission.generation.prompt == "a seven"
        return Image.new("RGB", (4, 6), "red")

    with Client(transport=MockTransport(draw)) as client:
        result = client.generate("a seven", seed=5, num_inference_steps=3)
    (picture,) = result.images
    assert picture.size == (4, 6)
    assert picture.getpixel((0, 0)) == (255, 0, 0)
    assert result.seed == 5
    assert result.job.state is JobState.SUCCEEDED
    assert result.videos == []
    assert result.save(tmp_path / "a.png") == [tmp_path / "a.png"]
    assert (tmp_path / "a.png").read_bytes() == result.outputs[0].content
    assert not client_threads()


def results(*contents: MockAnswer) -> GenerationResult:
    with Client(transport=MockTransport(lambda _: contents)) as client:  # type: ignore[arg-type,return-value]
        return client.generate("x")


def test_several_results_are_numbered(tmp_path: Path) -> None:
    result = results(*[Image.new("RGB", (1, 1))] * 3)
    names = [path.name for path in result.save(tmp_path / "out")]
    assert names == ["out-0.png", "out-1.png", "out-2.png"]


def test_a_suffix_of_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgumentError, match="does not suit image/png"):
        results(Image.new("RGB", (1, 1))).save(tmp_path / "a.jpg")
    with pytest.raises(InvalidArgumentError, match="No such file or directory"):
        results(Image.new("RGB", (1, 1))).save(tmp_path / "nowhere" / "a.png")


def test_a_video_is_a_file() -> None:
    content = b"\0\0\0\x18ftypisom" + bytes(100)
    result = results(content)
    assert result.images == []
    assert result.videos == [content]
    assert result.outputs[0].suffix == ".mp4"


@pytest.mark.parametrize(
    ("answer", "state"),
    [
        (JobFailedError("the GPU burns"), JobState.FAILED),
        (JobCancelledError("never mind"), JobState.CANCELLED),
        (DeadlineExceededError("too late"), JobState.EXPIRED),
    ],
)
def test_how_a_job_ends_is_what_its_result_raises(
    answer: DisagfusionError, state: JobState
) -> None:
    with Client(transport=MockTransport(lambda _: answer)) as client:
        handle = client.submit("x")
        assert handle.job.state is JobState.QUEUED
        with pytest.raises(type(answer)) as caught:
            handle.result()
        assert caught.value.metadata["job_id"] == handle.id
        assert handle.refresh().state is state
        with pytest.raises(type(answer)):
            handle.result()


def test_events_and_progress() -> None:
    with Client(transport=MockTransport()) as client:
        events = list(client.submit("x", num_inference_steps=2).events())
        steps = [event.progress.step for event in events if event.progress]
        assert steps == [1, 2]
        assert events[0].stage_status is StageStatus.WAITING
        assert events[-1].job is not None
        later = list(client.job("job-1").events(after_sequence=events[-2].sequence))
        assert later == [events[-1]]


def test_a_waiting_job_can_be_cancelled() -> None:
    with Client(transport=MockTransport(lambda _: None)) as client:
        handle = client.submit("x")
        events = handle.events()
        assert next(events).state is JobState.QUEUED
        assert handle.cancel().state is JobState.CANCELLED
        assert next(events).state is JobState.CANCELLED
        assert handle.cancel().state is JobState.CANCELLED
        with pytest.raises(JobCancelledError):
            handle.result()


def test_leaving_events_early_leaves_nothing_behind() -> None:
    with Client(transport=MockTransport(lambda _: None)) as client:
        events = client.submit("x").events()
        next(events)
        del events
        gc.collect()
        assert client.job("job-1").job.state is JobState.QUEUED
    assert not client_threads()


def test_the_same_request_id_is_the_same_job() -> None:
    transport = MockTransport()
    with Client(transport=transport) as client:
        assert client.submit("x", client_request_id="1").id == "job-1"
        assert client.submit("x", client_request_id="1").id == "job-1"
        with pytest.raises(AlreadyExistsError):
            client.submit("y", client_request_id="1")
    assert len(transport.submissions) == 1


def test_a_refusal_is_raised_and_an_absence_outlasted() -> None:
    answers: list[MockAnswer] = [UnavailableError("away"), InvalidArgumentError("height", "odd")]

    def answer(_: Submission) -> MockAnswer:
        if answers:
            raise answers.pop(0)  # type: ignore[misc]
        return Image.new("RGB", (1, 1))

    with Client(transport=MockTransport(answer), retry=RetryPolicy(initial=0.0)) as client:
        with pytest.raises(InvalidArgumentError):
            client.generate("x")
        assert client.generate("x").images


def test_listing() -> None:
    with Client(transport=MockTransport()) as client:
        for _ in range(5):
            client.generate("x")
        assert [job.id for job in client.jobs(page_size=2)] == [f"job-{n}" for n in (5, 4, 3, 2, 1)]
        assert list(client.jobs(states=[JobState.FAILED])) == []
        with pytest.raises(NotFoundError):
            client.job("job-9")


def test_a_closed_client_says_so() -> None:
    client = Client(transport=MockTransport())
    handle = client.submit("x")
    client.close()
    client.close()
    for use in (lambda: client.generate("x"), handle.refresh, lambda: next(handle.events())):
        with pytest.raises(FailedPreconditionError, match="closed"):
            use()


def test_a_client_that_is_forgotten_ends_its_thread() -> None:
    client = Client(transport=MockTransport())
    assert client_threads()
    del client
    gc.collect()
    assert not client_threads()


def test_a_callback_that_calls_its_own_client_is_told() -> None:
    with (
        Client(transport=MockTransport()) as client,
        pytest.raises(FailedPreconditionError, match="callback"),
    ):
        client.generate("x", on_event=lambda _: client.generate("y"))


def test_many_threads_share_a_client() -> None:
    with Client(transport=MockTransport()) as client:
        made: list[str] = []
        threads = [
            threading.Thread(target=lambda: made.append(client.generate("x").job.id))
            for _ in range(16)
        ]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert len(set(made)) == 16


def test_a_thousand_clients() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(300):
        with Client(transport=MockTransport()) as client:
            client.submit("x")
    assert len(os.listdir("/proc/self/fd")) == before
    assert not client_threads()


def test_a_fork_can_use_the_client() -> None:
    with Client(transport=MockTransport()) as client:
        client.generate("x")
        child = os.fork()
        if child == 0:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                code = 1
                try:
                    code = 0 if client.generate("x").images else 2
                finally:
                    os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        assert client.generate("x").images


@pytest.mark.parametrize("ending", ["pass", "sys.exit(0)", "raise SystemExit(0)"])
def test_a_program_that_forgets_to_close_ends(ending: str) -> None:
    code = (
        "import sys\nfrom disagfusion.client import Client, MockTransport\n"
        "client = Client(transport=MockTransport(lambda _: None))\n"
        f"events = client.submit('x').events(); next(events)\n{ending}"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], timeout=30, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_ctrl_c_cancels_what_was_waited_for() -> None:
    code = (
        "import os, signal, threading\nfrom disagfusion.client import Client, MockTransport\n"
        "transport = MockTransport(lambda _: None)\n"
        "interrupt = lambda event: os.kill(os.getpid(), signal.SIGINT)\n"
        "try:\n    with Client(transport=transport) as client:\n"
        "        client.generate('x', on_event=interrupt)\n"
        "except KeyboardInterrupt:\n    print(transport._jobs['job-1'].state.name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], timeout=30, capture_output=True, check=False
    )
    assert done.stderr == b""
    assert done.stdout == b"CANCELLED\n"
    assert signal.getsignal(signal.SIGINT) is not None


def test_the_import_is_light() -> None:
    code = (
        "import sys, disagfusion.client\n"
        "heavy = {'torch', 'diffusers', 'transformers', 'ucxx', 'numpy', 'sqlalchemy', 'grpc'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
        "import disagfusion.client.grpc_transport\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=60, stdout=-1, check=True)
    assert done.stdout.split(b"\n")[:2] == [b"[]", b"['grpc']"]


def test_what_is_exported_exists_and_is_free_of_protobuf() -> None:
    for name in disagfusion.client.__all__:
        exported = getattr(disagfusion.client, name)
        assert not getattr(exported, "__module__", "").startswith(("disagfusion.v1", "google"))


async def test_the_asynchronous_client_is_the_same() -> None:
    async with AsyncClient(transport=MockTransport()) as client:
        seen: list[int] = []
        result = await client.generate("x", on_event=lambda event: seen.append(event.sequence))
        assert result.images
        assert seen == sorted(seen)
        assert [job.id async for job in client.jobs()] == ["job-1"]
        handle = await client.job("job-1")
        assert (await handle.refresh()).state is JobState.SUCCEEDED


@pytest.mark.parametrize("address", [None, "", "nowhere", "host:port", "host:99999", "unix:x"])
def test_an_address_that_is_none_is_refused(address: str | None) -> None:
    with pytest.raises(InvalidArgumentError):
        Client(address)
    assert not client_threads()
