"""What goes wrong on the way, and what is left of it."""

from __future__ import annotations

import json
import resource
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from weightskit.command import Command, Outcome, ended
from weightskit.servers import COMMIT, Fault, Server

from disagfusion.weights.directory import DIGITS

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
SIZE = (DIGITS / WEIGHTS).stat().st_size


def right(outcome: Outcome) -> bool:
    return (outcome.path / WEIGHTS).read_bytes() == (DIGITS / WEIGHTS).read_bytes()


def test_what_broke_off_goes_on_where_it_was(fetch: Command, hub: str, server: Server) -> None:
    server.faults[WEIGHTS] = [Fault(cut=1_000_000), Fault(cut=500_000)]
    assert right(fetch(hub, "--stage", "dit"))
    assert server.asked(f"/cdn/{WEIGHTS}") == ["", "bytes=1000000-", "bytes=1500000-"]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_busy_is_asked_again(
    fetch: Command, hub: str, server: Server, status: int
) -> None:
    server.faults[WEIGHTS] = [Fault(status=status)]
    assert right(fetch(hub, "--stage", "dit"))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda content: b"x" + content[1:], id="changed"),
        pytest.param(lambda content: content + b"more", id="longer"),
    ],
)
def test_wrong_content_is_fetched_once_more_and_never_kept(
    fetch: Command, hub: str, server: Server, change: Callable[[bytes], bytes]
) -> None:
    server.faults[WEIGHTS] = [Fault(change=change)]
    assert right(fetch(hub, "--stage", "dit"))
    fetch.cache = fetch.cache.with_name("other")
    server.faults[WEIGHTS] = [Fault(change=change, times=99)]
    outcome = fetch(hub, "--stage", "dit")
    assert outcome.status == 6
    assert f"{WEIGHTS} has" in outcome.error
    assert not list(fetch.cache.rglob("diffusion_pytorch_model.safetensors"))


def test_a_small_file_is_known_by_gits_name_for_it(
    fetch: Command, hub: str, server: Server
) -> None:
    name = "transformer/config.json"
    server.faults[name] = [Fault(change=lambda content: content[::-1], times=99)]
    outcome = fetch(hub, "--stage", "dit")
    assert outcome.status == 6
    assert f"{name} has the git object" in outcome.error


def test_a_file_that_ends_too_early_is_given_up(fetch: Command, hub: str, server: Server) -> None:
    server.faults[WEIGHTS] = [Fault(cut=0, times=99)]
    outcome = fetch(hub, "--stage", "dit")
    assert outcome.status == 7
    assert f"{WEIGHTS} cannot be fetched beyond 0 of {SIZE} bytes" in outcome.error


def test_a_silent_server_is_left_and_asked_again(fetch: Command, hub: str, server: Server) -> None:
    forever = threading.Event()
    server.faults[WEIGHTS] = [Fault(pause=forever.wait)]
    try:
        assert right(fetch(hub, "--stage", "dit", "--timeout", "0.5"))
    finally:
        forever.set()
    assert len(server.asked(f"/cdn/{WEIGHTS}")) == 2


WRONG = [
    pytest.param("hub:acme/nothing", [], 3, "no such repository", id="repository"),
    pytest.param("hub:acme/digits", ["--revision", "v9"], 3, "no revision 'v9'", id="revision"),
    pytest.param("dir:/models/nowhere", [], 3, "no such directory", id="directory"),
    pytest.param("URL/store/no.json", [], 3, "there is no such document", id="document"),
    pytest.param("URL/store/disagfusion.json", [], 6, "not a list of files", id="other-document"),
    pytest.param("URL/store/flow.png", [], 7, "something else than a document", id="no-json"),
    pytest.param("acme/digits", [], 2, "expected hub:NAME", id="no-kind"),
    pytest.param("hub:../../etc", [], 2, "expected hub:NAME", id="no-name"),
    pytest.param("builtin:digits", ["--revision", "v1"], 2, "for repositories", id="digits"),
    pytest.param(
        "builtin:digits", ["--workflows", "text2video"], 1, "none of the workflows", id="workflow"
    ),
]


@pytest.mark.parametrize(("source", "arguments", "status", "problem"), WRONG)
def test_what_is_wrong_is_one_clear_line_within_seconds(
    fetch: Command,
    server: Server,
    source: str,
    arguments: list[str],
    status: int,
    problem: str,
) -> None:
    begin = time.monotonic()
    outcome = fetch(source.replace("URL", server.url), "--stage", "dit", *arguments)
    assert time.monotonic() - begin < 15
    assert outcome.status == status, outcome.error
    (line,) = outcome.error.splitlines()
    assert problem in line
    assert line.startswith("disagfusion weights: ")
    assert fetch.log.read_text() == line
    assert outcome.phases[-1]["phase"] == "failed"
    assert outcome.phases[-1]["message"] in line


def test_who_may_not_is_told_why(fetch: Command, hub: str, server: Server) -> None:
    server.token = "hf_right"
    outcome = fetch(hub)
    # To strangers the hub says that there is none.
    assert (outcome.status, "or it is private and needs a token" in outcome.error) == (3, True)
    fetch.environment["HF_TOKEN"] = "hf_right"
    server.gated = True
    outcome = fetch(hub)
    assert (outcome.status, "terms have to be accepted" in outcome.error) == (4, True)
    assert "hf_right" not in outcome.error


def test_a_hub_that_is_away_is_said(fetch: Command, hub: str) -> None:
    fetch.environment["HF_ENDPOINT"] = "http://127.0.0.1:1"
    outcome = fetch(hub)
    assert outcome.status == 7
    assert "127.0.0.1:1 cannot be reached" in outcome.error


def test_killed_in_the_middle_it_goes_on(fetch: Command, hub: str, server: Server) -> None:
    half, forever = threading.Event(), threading.Event()
    pieces = iter(range(1000))

    def pause() -> None:
        if next(pieces) == 20:
            half.set()
            forever.wait()

    server.faults[WEIGHTS] = [Fault(pause=pause)]
    process = fetch.start(hub, "--stage", "dit")
    try:
        assert half.wait(60)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    finally:
        forever.set()
    assert not list(fetch.cache.rglob("diffusion_pytorch_model.safetensors"))
    assert right(fetch(hub, "--stage", "dit"))
    again = server.asked(f"/cdn/{WEIGHTS}")[1]
    assert again == "" or 0 < int(again.removeprefix("bytes=").rstrip("-")) < SIZE
    assert not list((fetch.cache / ".partial").iterdir())


def test_killed_before_it_is_noted_it_is_not_fetched_again(
    fetch: Command, hub: str, server: Server
) -> None:
    outcome = fetch(hub, "--stage", "dit")
    path = outcome.path / "disagfusion-weights.json"
    record = json.loads(path.read_text())
    del record["files"][WEIGHTS]
    path.write_text(json.dumps(record))
    again = fetch(hub, "--stage", "dit")
    assert right(again)
    assert again.phase("ready")["downloaded"] == 0
    assert len(server.asked(f"/cdn/{WEIGHTS}")) == 1


def test_one_download_for_all_who_want_it(fetch: Command, hub: str, server: Server) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def pause() -> None:
        asked.set()
        go_on.wait()

    server.faults[WEIGHTS] = [Fault(pause=pause)]
    first = fetch.start(hub, "--stage", "dit", "--name", "pod-a")
    assert asked.wait(60)
    others = [fetch.start(hub, "--stage", "dit", "--name", f"pod-{n}") for n in "bcd"]
    for other in others:
        assert other.stdout
        lines = iter(other.stdout.readline, "")
        waiting = next(json.loads(line) for line in lines if '"waiting"' in line)
        assert waiting["on"] == "pod-a"
    go_on.set()
    assert ended(first).status == 0
    for other in others:
        assert ended(other).phases[-1]["downloaded"] == 0
    assert len(server.asked(f"/cdn/{WEIGHTS}")) == 1


def test_who_waits_for_one_that_is_killed_goes_on_itself(
    fetch: Command, hub: str, server: Server
) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def pause() -> None:
        asked.set()
        go_on.wait()

    server.faults[WEIGHTS] = [Fault(pause=pause)]
    first = fetch.start(hub, "--stage", "dit", "--name", "pod-a")
    assert asked.wait(60)
    second = fetch.start(hub, "--stage", "dit", "--name", "pod-b")
    assert second.stdout
    assert any('"waiting"' in line for line in iter(second.stdout.readline, ""))
    first.kill()
    first.communicate(timeout=60)
    assert ended(second).status == 0
    go_on.set()


def test_what_was_changed_on_the_disk_is_fetched_again(fetch: Command, hub: str) -> None:
    path = fetch(hub, "--stage", "dit", "--revision", COMMIT).path / WEIGHTS
    content = bytearray(path.read_bytes())
    state = path.stat()
    content[1000] ^= 1
    path.write_bytes(content)
    # As a failing disk would do it: no time and no size tells.
    import os

    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))
    assert fetch(hub, "--stage", "dit", "--revision", COMMIT).phase("ready")["downloaded"] == 0
    verified = fetch(hub, "--stage", "dit", "--revision", COMMIT, "--verify")
    assert verified.phase("damaged") == {
        **verified.phase("damaged"), "file": WEIGHTS, "problem": "has another content",
    }  # fmt: skip
    assert right(verified)
    path.write_bytes(b"short")
    assert right(fetch(hub, "--stage", "dit", "--revision", COMMIT))


def test_a_full_disk_is_said(fetch: Command, hub: str) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    outcome = fetch(hub, "--stage", "dit", preexec_fn=limit)
    assert outcome.status == 5
    assert "cannot be written to: the file is larger than this process may write" in outcome.error
    assert right(fetch(hub, "--stage", "dit"))


def test_more_than_the_cache_may_take_is_not_begun(
    fetch: Command, hub: str, server: Server
) -> None:
    outcome = fetch(hub, "--stage", "dit", "--max-bytes", "1000000")
    assert outcome.status == 5
    assert "of the 0.95 MiB that --max-bytes allows" in outcome.error
    assert not server.asked(f"/cdn/{WEIGHTS}")


def test_a_cache_that_is_somebody_elses(fetch: Command, hub: str, tmp_path: Path) -> None:
    fetch.cache.write_text("no directory")
    outcome = fetch(hub, "--stage", "dit")
    assert outcome.status == 1
    assert "the cache cannot be written to by user" in outcome.error


def test_sigterm_ends_it_at_once(fetch: Command, hub: str, server: Server) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def pause() -> None:
        asked.set()
        go_on.wait()

    server.faults[WEIGHTS] = [Fault(pause=pause)]
    process = fetch.start(hub, "--stage", "dit")
    try:
        assert asked.wait(60)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    finally:
        go_on.set()
    assert process.returncode == 143
