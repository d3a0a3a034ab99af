"""The command without a service: how it starts, what it refuses, what it prints."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from disagfusion import errors
from disagfusion.cli import app, checks
from disagfusion.cli.errors import exit_status, one_line
from disagfusion.cli.options import parse_parameters
from disagfusion.cli.show import (
    JobProgress,
    job_dict,
    job_table,
    process_line,
    process_table,
    stage_dict,
    stage_table,
)
from disagfusion.client import (
    Client,
    Generation,
    Job,
    JobState,
    MockTransport,
    Stage,
    StageRecord,
)
from disagfusion.local.plan import ProcessState, ProcessStatus
from disagfusion.version import __version__


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        app.main(list(arguments))
    out, err = capsys.readouterr()
    status = left.value.code
    assert status is None or isinstance(status, int)
    return status or 0, out, err


def test_help_and_version_import_nothing_heavy() -> None:
    code = (
        "import sys\nfrom disagfusion.cli.app import main\n"
        "try:\n    main(['--version'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'diffusers', 'ucxx', 'numpy', 'grpc', 'sqlalchemy', 'pydantic', 'PIL'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=60, stdout=-1, check=True)
    assert done.stdout.decode().splitlines() == [f"disagfusion {__version__}", "[]"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("generate",), "Missing argument"),
        (("generate", "x", "--seed", "abc"), "--seed"),
        (("generate", "x", "--bogus"), "No such option: --bogus"),
        (("generate", "x", "-o", "/nonexistent/x.png"), "there is no directory"),
        (("generate", "x", "-o", "x.gif"), ".gif is unknown"),
        (("generate", "x", "-o", "/tmp"), "is a directory"),
        (("generate", "x", "-p", "strength"), "expected name=value"),
        (("generate", "x", "-p", "a=1", "-p", "a=2"), "a is given twice"),
        (("generate", "x", "--model", "/nonexistent"), "there is no /nonexistent"),
        (("generate", "x", "--address", "nowhere"), "address: 'nowhere' is not an address"),
        (("generate", "x", "--address", "h:1", "--tls-cert", "c.pem"), "--tls-ca together"),
        (("generate", "x", "--address", "h:1", "--image", "/no.png"), "cannot read /no.png"),
        (("serve", "--listen", "nowhere"), "expected HOST:PORT"),
        (("serve", "--dits", "0"), "--dits"),
        (("serve", "--handover", "later"), "expected async or sync"),
        (("jobs", "list", "--state", "asleep"), "expected QUEUED"),
        (("nosuch",), "No such command"),
    ],
)
def test_a_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], text: str
) -> None:
    status, out, err = run(capsys, *arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ")
    assert text in err
    assert len(err.splitlines()) == 1


def test_debug_shows_the_traceback() -> None:
    with pytest.raises(errors.InvalidArgumentError):
        app.main(["generate", "x", "-p", "strength", "--debug"])


def test_keys_are_made(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "keys.txt"
    status, out, _ = run(capsys, "keys", "create", "alice", "--file", str(file))
    assert (status, out[:4]) == (0, "dfk_")
    assert file.read_text().startswith("alice: sha256:")
    assert out.strip() not in file.read_text()
    assert run(capsys, "keys", "create", "a b", "--file", str(file))[0] == 2


def test_every_error_has_a_status() -> None:
    assert exit_status(errors.InvalidArgumentError("height", "odd")) == 2
    assert exit_status(errors.JobFailedError("x")) == 1
    assert exit_status(errors.UnavailableError("x")) == 5
    assert exit_status(errors.JobCancelledError("x")) == 7
    assert one_line(errors.InternalError("two\nlines")) == "two lines"
    assert one_line(FileNotFoundError(2, "No such file", "a.png")) == "a.png: No such file"
    assert one_line(ZeroDivisionError("x")) == "ZeroDivisionError: x (--debug shows where)"


def test_parameters_are_typed() -> None:
    given = ["a=0.5", "b=true", "c=[1, 2]", 'd="5"', "e=five", "f=@x.png", "g=a=b", "h="]
    assert parse_parameters(given) == {
        "a": 0.5, "b": True, "c": [1, 2], "d": "5", "e": "five", "f": Path("x.png"), "g": "a=b",
        "h": "",
    }  # fmt: skip


RECORDS = (
    StageRecord(Stage.ENCODER, 1, pid=11, device="cpu", threads=1, transport="ucx/shm"),
    StageRecord(Stage.DIT, 1, pid=12, outcome="engine lost"),
    StageRecord(Stage.DIT, 2, pid=13, bytes_out=1024, transport="ucx/shm"),
    StageRecord(Stage.DECODER, 2, pid=14),
)


def rendered(table: Table) -> str:
    file = io.StringIO()
    Console(width=200, file=file).print(table)
    return file.getvalue()


def test_stages_in_json_and_as_a_table() -> None:
    entries = [stage_dict(record) for record in RECORDS]
    assert [entry["transport"] for entry in entries] == ["ucx/shm", None, "ucx/shm", None]
    assert json.loads(json.dumps(entries))[1]["stage"] == "dit"
    text = rendered(stage_table(RECORDS))
    assert "dit (engine lost)" in text
    assert "attempt" in text
    assert "1,024" in text


def test_a_job_in_json_and_as_a_table() -> None:
    job = Job(
        "j", JobState.FAILED, Generation("two\n[bold]words"), error=errors.JobFailedError("burnt")
    )
    values = json.loads(json.dumps(job_dict(job)))
    assert values["error"] == {"reason": "JOB_FAILED", "message": "burnt"}
    assert "two [bold]words" in rendered(job_table([job]))


def test_processes_say_what_stage_they_have() -> None:
    gateway = ProcessStatus("gateway", "gateway", ProcessState.READY, 8, 0)
    dit = ProcessStatus("dit-5", "decoder", ProcessState.READY, 9, 0)
    lines = [line.split() for line in rendered(process_table([gateway, dit])).splitlines()]
    assert lines[0] == ["process", "stage", "state", "pid", "restarts", "last"]
    assert lines[1:] == [
        ["gateway", "–", "ready", "8", "0"],
        ["dit-5", "decoder", "ready", "9", "0"],
    ]
    assert process_line(gateway, None) == "gateway is ready, process 8"
    assert process_line(dit, None) == "dit-5 is ready as decoder, process 9"
    was = dataclasses.replace(dit, role="dit")
    assert process_line(dit, was) == "dit-5 changes to decoder, process 9"


def test_how_a_process_ended_is_said_of_the_one_before_and_once() -> None:
    first = ProcessStatus("dit-0", "dit", ProcessState.READY, 8, 0)
    lost = dataclasses.replace(
        first, state=ProcessState.BACKOFF, pid=0, detail="was killed by SIGKILL"
    )
    back = dataclasses.replace(lost, state=ProcessState.READY, pid=9, restarts=1)
    assert process_line(lost, first) == "dit-0 is backoff: was killed by SIGKILL"
    assert process_line(back, lost) == (
        "dit-0 is ready as dit, process 9 (the one before was killed by SIGKILL)"
    )
    starting = dataclasses.replace(back, state=ProcessState.STARTING)
    assert process_line(starting, lost) == (
        "dit-0 is starting, process 9 (the one before was killed by SIGKILL)"
    )
    assert process_line(back, starting) == "dit-0 is ready as dit, process 9"
    stopped = dataclasses.replace(back, state=ProcessState.STOPPED, pid=0)
    assert process_line(stopped, back) == "dit-0 is stopped"
    changed = dataclasses.replace(back, role="decoder")
    assert process_line(changed, back) == "dit-0 changes to decoder, process 9"


def test_contact_that_is_lost_and_found() -> None:
    heard = ProcessStatus("dit-0", "dit", ProcessState.READY, 8, 0)
    hung = dataclasses.replace(
        heard, state=ProcessState.SILENT, detail="gave no sign of life for 10 s"
    )
    assert process_line(hung, heard) == (
        "dit-0 is silent, process 8: gave no sign of life for 10 s"
    )
    assert process_line(heard, hung) == "dit-0 is ready again as dit, process 8"


def test_progress_follows_every_event() -> None:
    console = Console(force_terminal=True, width=80, file=io.StringIO())
    with (
        Client(transport=MockTransport()) as client,
        JobProgress(console) as progress,
    ):
        client.generate("x", num_inference_steps=3, on_event=progress.update)
        assert progress._progress.finished


def test_doctor_finds_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_PACKAGES", (("no-such-package", "stage", True),))
    (check,) = checks._packages()
    assert check.level is checks.Level.MISSING
    assert check.remedy == "pip install 'disagfusion[stage]'"
    monkeypatch.setattr(checks, "DIGITS", Path("/nonexistent"))
    assert checks._model().level is checks.Level.WARNING
