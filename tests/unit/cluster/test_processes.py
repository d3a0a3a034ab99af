from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest

from tools.cluster.errors import ClusterError
from tools.cluster.processes import Processes, Record, alive, boot_id, started_at, wait_for

SLEEP = [sys.executable, "-c", "import signal; print('ready', flush=True); signal.pause()"]


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    for name in ("records", "logs"):
        (tmp_path / name).mkdir()
    found = Processes(tmp_path / "records", tmp_path / "logs", tmp_path)
    yield found
    found.kill_all()


def fake_process(
    proc: Path, pid: int, *, name: str = "etcd", state: str = "S", at: int = 7
) -> None:
    (proc / str(pid)).mkdir(parents=True)
    fields = [state, *["0"] * 18, str(at), *["0"] * 30]
    (proc / str(pid) / "stat").write_text(f"{pid} ({name}) {' '.join(fields)}\n")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    path = tmp_path / "proc"
    (path / "sys/kernel/random").mkdir(parents=True)
    (path / "sys/kernel/random/boot_id").write_text("this-boot\n")
    return path


RECORD = Record("etcd", 42, 7, "this-boot", ("etcd",))


def test_a_process_is_known_by_its_number_and_its_start(proc: Path) -> None:
    fake_process(proc, 42)
    assert alive(RECORD, proc)


def test_another_process_of_the_same_number_is_not_it(proc: Path) -> None:
    fake_process(proc, 42, at=8)
    assert not alive(RECORD, proc)


def test_a_process_of_an_earlier_run_of_the_machine_is_not_it(proc: Path) -> None:
    fake_process(proc, 42)
    assert not alive(replace(RECORD, boot="another-boot"), proc)


def test_one_that_ended_and_was_not_waited_for_does_not_run(proc: Path) -> None:
    fake_process(proc, 42, state="Z")
    assert not alive(RECORD, proc)


def test_a_name_with_spaces_and_parentheses_is_no_trouble(proc: Path) -> None:
    fake_process(proc, 42, name="a) S (b 1 2")
    assert started_at(42, proc) == 7


def test_this_process_began_before_now() -> None:
    at = started_at(os.getpid())
    assert at is not None
    assert at > 0
    assert boot_id()


def test_what_was_started_runs_in_a_session_of_its_own_until_it_is_stopped(
    processes: Processes,
) -> None:
    record = processes.start("sleeper", SLEEP)
    assert processes.alive("sleeper")
    assert os.getsid(record.pid) == record.pid
    # It outlives this process, which must not be its parent.
    assert psutil.Process(record.pid).ppid() != os.getpid()
    wait_for("its first line", 30, lambda: processes.tail("sleeper") == "ready")
    processes.stop("sleeper")
    assert not processes.alive("sleeper")
    assert processes.names() == ["sleeper"]


def test_what_runs_is_not_started_twice(processes: Processes) -> None:
    processes.start("sleeper", SLEEP)
    with pytest.raises(ClusterError, match="sleeper runs already"):
        processes.start("sleeper", SLEEP)


def test_a_program_that_is_not_there_is_named(processes: Processes) -> None:
    with pytest.raises(ClusterError, match="etcd cannot be started: /nowhere/etcd"):
        processes.start("etcd", ["/nowhere/etcd"])


def test_a_program_is_started_again_as_before(processes: Processes) -> None:
    first = processes.start("sleeper", SLEEP)
    processes.stop("sleeper", signal.SIGKILL)
    again = processes.restart("sleeper")
    assert again.command == first.command
    assert again.pid != first.pid
    with pytest.raises(ClusterError, match="no program walker; there are sleeper"):
        processes.restart("walker")


def test_it_is_started_again_with_the_environment_that_it_had(
    processes: Processes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOGC", "400")
    tell = "import os, signal; print(os.environ.get('GOGC'), flush=True); signal.pause()"
    processes.start("teller", [sys.executable, "-c", tell])
    wait_for("its first line", 30, lambda: processes.tail("teller") == "400")
    processes.stop("teller")
    monkeypatch.delenv("GOGC")
    processes.restart("teller")
    wait_for("the same line", 30, lambda: processes.tail("teller") == "400\n400")
    # It may be told secrets by its environment.
    assert (tmp_path / "records" / "teller.json").stat().st_mode & 0o077 == 0


def test_one_that_was_frozen_is_ended_too(processes: Processes) -> None:
    processes.start("sleeper", SLEEP)
    assert processes.send("sleeper", signal.SIGSTOP)
    processes.stop("sleeper")
    assert not processes.alive("sleeper")


def test_one_that_does_not_listen_is_killed(processes: Processes) -> None:
    deaf = "import signal as s; s.signal(15, s.SIG_IGN); print('ready', flush=True); s.pause()"
    processes.start("deaf", [sys.executable, "-c", deaf])
    wait_for("its first line", 30, lambda: processes.tail("deaf") == "ready")
    processes.stop("deaf", seconds=0.3)
    assert not processes.alive("deaf")


def test_all_are_killed_and_the_first_are_first(processes: Processes) -> None:
    for name in ("a-proxy", "b-kubelet", "c-proxy"):
        processes.start(name, SLEEP)
    killed = processes.kill_all(first=lambda name: name.endswith("kubelet"))
    assert killed == ["b-kubelet", "a-proxy", "c-proxy"]
    assert not any(processes.alive(name) for name in processes.names())


def test_a_stale_record_leads_to_nobodys_end(processes: Processes, tmp_path: Path) -> None:
    # This very process, as if it had begun at another time: it must live.
    record = Record("stale", os.getpid(), 1, boot_id(), ("stale",))
    (tmp_path / "records" / "stale.json").write_text(json.dumps(asdict(record)))
    assert processes.kill_all() == []
    assert not processes.send("stale", signal.SIGKILL)


def test_a_record_that_was_half_written_is_no_record(processes: Processes, tmp_path: Path) -> None:
    (tmp_path / "records" / "half.json").write_text('{"name": "half"')
    assert processes.record("half") is None
    assert not processes.alive("half")
    assert processes.kill_all() == []


def test_the_reason_for_an_end_has_the_logs_last_lines(processes: Processes) -> None:
    processes.start("failing", [sys.executable, "-c", "print('no such flag')"])
    why = processes.why_not("failing")
    wait_for("its end", 30, lambda: why() is not None)
    assert "failing ended" in str(why())
    assert "no such flag" in str(why())


def test_waiting_ends_early_where_it_is_of_no_use() -> None:
    with pytest.raises(ClusterError, match="the API server: it ended"):
        wait_for("the API server", 60, lambda: False, lambda: "it ended")


def test_an_answer_in_the_place_of_one_that_ended_is_none() -> None:
    with pytest.raises(ClusterError, match="etcd: it ended"):
        wait_for("etcd", 60, lambda: True, lambda: "it ended")


def test_waiting_has_an_end() -> None:
    with pytest.raises(ClusterError, match="the API server: not within 0 s"):
        wait_for("the API server", 0, lambda: False)
