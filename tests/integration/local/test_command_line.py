"""The commands that talk to a running service."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from disagfusion.local import LocalRuntime

pytestmark = pytest.mark.timeout(600)

SIZE = ("--height", "64", "--width", "64", "--steps", "4")
COMMAND = (sys.executable, "-c", "from disagfusion.cli.app import main; main()")
STAGE_KEYS = [
    "stage", "attempt", "pid", "device", "threads", "queue_seconds", "compute_seconds",
    "receive_seconds", "send_seconds", "bytes_out", "transport",
]  # fmt: skip


def run(*arguments: str, status: int = 0) -> tuple[str, str]:
    done = subprocess.run(
        [*COMMAND, *arguments], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == status, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout, done.stderr


def test_generate_prints_exactly_one_object(runtime: LocalRuntime, tmp_path: Path) -> None:
    file = tmp_path / "seven.png"
    out, err = run(
        "generate", "a handwritten seven in red", "-o", str(file), "--seed", "7", "--json",
        *SIZE, "--address", runtime.address,
    )  # fmt: skip
    answer = json.loads(out)
    assert list(answer) == ["id", "outputs", "seed", "total_seconds", "stages"]
    assert answer["outputs"] == [str(file)]
    assert answer["seed"] == 7
    assert [list(stage) for stage in answer["stages"]] == [STAGE_KEYS] * 3
    assert [stage["stage"] for stage in answer["stages"]] == ["encoder", "dit", "decoder"]
    assert answer["stages"][1]["transport"].startswith("ucx/")
    assert answer["stages"][2]["transport"] is None
    assert answer["total_seconds"] > 0
    assert err == ""
    with Image.open(file) as picture:
        assert picture.size == (64, 64)


def test_generate_shows_paths_and_a_table(runtime: LocalRuntime, tmp_path: Path) -> None:
    file = tmp_path / "out.jpg"
    out, err = run(
        "generate", "a handwritten two in blue", "-o", str(file), "-n", "2", *SIZE,
        "--address", runtime.address,
    )  # fmt: skip
    paths = [tmp_path / "out-0.jpg", tmp_path / "out-1.jpg"]
    assert out.split() == [str(path) for path in paths]
    assert all(path.read_bytes()[:2] == b"\xff\xd8" for path in paths)
    assert [line.split()[0] for line in err.splitlines()][:4] == [
        "stage",
        "encoder",
        "dit",
        "decoder",
    ]


def test_jobs_can_be_listed_shown_and_cancelled(runtime: LocalRuntime, tmp_path: Path) -> None:
    where = ("--address", runtime.address)
    out, _ = run("generate", "a four", "-o", str(tmp_path / "a.png"), "--json", *SIZE, *where)
    job_id = json.loads(out)["id"]
    listed = json.loads(run("jobs", "list", "--json", "--state", "succeeded", *where)[0])
    assert job_id in [job["id"] for job in listed["jobs"]]
    assert job_id in run("jobs", "list", *where)[0]
    shown = json.loads(run("jobs", "show", job_id, "--json", *where)[0])
    assert (shown["state"], shown["prompt"]) == ("SUCCEEDED", "a four")
    assert "decoder" in run("jobs", "show", job_id, *where)[0]
    assert run("jobs", "cancel", job_id, *where)[0] == f"{job_id} SUCCEEDED\n"
    _, err = run("jobs", "show", "nonesuch", *where, status=4)
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("--height", "63"),
        ("--steps", "-1"),
        ("--width", "1000000000"),
        ("-p", "no_such_parameter=1"),
        ("--pipeline", "other"),
        ("--output-format", "mp4"),
        ("--image", __file__),
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_bad_request_is_one_line(
    runtime: LocalRuntime, tmp_path: Path, arguments: tuple[str, str]
) -> None:
    status = 4 if arguments[0] == "--pipeline" else 2
    _, err = run(
        "generate", "a seven", "-o", str(tmp_path / "a"), *arguments,
        "--address", runtime.address, status=status,
    )  # fmt: skip
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_the_time_a_job_may_take(runtime: LocalRuntime, tmp_path: Path) -> None:
    _, err = run(
        "generate", "a seven", "-o", str(tmp_path / "a.png"), *SIZE[:4], "--steps", "1000",
        "--timeout", "0.5", "--address", runtime.address, status=6,
    )  # fmt: skip
    assert len(err.splitlines()) == 1
