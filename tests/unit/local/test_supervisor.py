from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from disagfusion.errors import FailedPreconditionError, InvalidArgumentError
from disagfusion.local import death
from disagfusion.local.plan import Plan, ProcessSpec, ProcessState, RestartPolicy, RoleSpec
from disagfusion.local.supervisor import Supervisor

from .conftest import alive, marked

QUICK = RestartPolicy(initial=0.01, maximum=0.05, limit=3, healthy_after=1000.0)
Dummy = Callable[..., ProcessSpec]


@asynccontextmanager
async def supervising(
    tmp_path: Path, *specs: ProcessSpec, policy: RestartPolicy = QUICK, grace: float = 5.0
) -> AsyncIterator[Supervisor]:
    supervisor = Supervisor(
        Plan(os.getpid(), specs, str(tmp_path), policy=policy, stop_grace=grace)
    )
    supervisor.start()
    try:
        yield supervisor
    finally:
        await supervisor.stop()
    assert marked(str(tmp_path)) == []


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 -- what is awaited is outside this process
            await asyncio.sleep(0.005)


async def test_processes_start_announce_themselves_and_end(tmp_path: Path, dummy: Dummy) -> None:
    async with supervising(tmp_path, dummy("a"), dummy("b")) as supervisor:
        assert await supervisor.settled()
        first, second = supervisor.status()
        assert first.address == f"address-of-{first.pid}"
        assert alive(first.pid)
        assert alive(second.pid)
    assert {entry.state for entry in supervisor.status()} == {ProcessState.STOPPED}
    assert "ready" in (tmp_path / "a.log").read_text()


async def test_what_dies_is_started_again_at_its_address(tmp_path: Path, dummy: Dummy) -> None:
    async with supervising(tmp_path, dummy("a")) as supervisor:
        assert await supervisor.settled()
        (before,) = supervisor.status()
        os.kill(before.pid, signal.SIGKILL)
        await until(lambda: supervisor.status()[0].restarts == 1)
        assert await supervisor.settled()
        (after,) = supervisor.status()
        assert after.pid != before.pid
        assert after.address == before.address
        assert after.detail == "was killed by SIGKILL"


BEATS = "while True: os.utime(path); time.sleep(0.01)"


async def test_one_that_gives_no_sign_of_life_is_silent_until_it_does(
    tmp_path: Path, dummy: Dummy
) -> None:
    policy = dataclasses.replace(QUICK, look_seconds=0.02, silent_after=0.3, killed_after=1000.0)
    spec = dummy("a", BEATS, heartbeat=True)
    async with supervising(tmp_path, spec, policy=policy) as supervisor:
        assert await supervisor.settled()
        pid = supervisor.status()[0].pid
        os.kill(pid, signal.SIGSTOP)
        await until(lambda: supervisor.status()[0].state is ProcessState.SILENT)
        assert supervisor.status()[0].detail.startswith("gave no sign of life for 0.")
        os.kill(pid, signal.SIGCONT)
        await until(lambda: supervisor.status()[0].state is ProcessState.READY)
        assert (supervisor.status()[0].pid, supervisor.status()[0].detail) == (pid, "")
    journal = (tmp_path / "supervisor.log").read_text()
    assert "a: gives signs of life again" in journal


async def test_one_that_stays_silent_is_started_again(tmp_path: Path, dummy: Dummy) -> None:
    policy = dataclasses.replace(QUICK, look_seconds=0.02, silent_after=0.3, killed_after=0.6)
    # What says nothing of itself from the start is not expected to.
    specs = dummy("a", BEATS, heartbeat=True), dummy("b")
    async with supervising(tmp_path, *specs, policy=policy) as supervisor:
        assert await supervisor.settled()
        hung, other = supervisor.status()
        os.kill(hung.pid, signal.SIGSTOP)
        await until(lambda: supervisor.status()[0].restarts >= 1)
        assert supervisor.status()[0].detail.startswith("gave no sign of life for 0.")
        assert not alive(hung.pid)
        assert supervisor.status()[1] == other


async def test_what_dies_before_it_is_ready_is_given_up(tmp_path: Path, dummy: Dummy) -> None:
    program = "import os; print('no cheese', flush=True); os.kill(os.getpid(), 9)"
    spec = dummy("a", argv=(sys.executable, "-c", program))
    async with supervising(tmp_path, spec) as supervisor:
        await until(lambda: supervisor.status()[0].state is ProcessState.FAILED)
        (entry,) = supervisor.status()
        assert entry.restarts == QUICK.limit
        assert entry.detail.startswith("was killed by SIGKILL")
        assert entry.detail.endswith("no cheese")
        assert not await supervisor.settled()


async def test_what_was_ready_once_is_never_given_up(tmp_path: Path, dummy: Dummy) -> None:
    spec = dummy("a", "sys.exit('the disk is made of cheese')")
    async with supervising(tmp_path, spec) as supervisor:
        await until(lambda: supervisor.status()[0].restarts > QUICK.limit + 1)
        assert supervisor.status()[0].state is not ProcessState.FAILED


async def test_a_wrong_setting_is_not_tried_twice(tmp_path: Path, dummy: Dummy) -> None:
    spec = dummy("a", argv=(sys.executable, "-c", "raise SystemExit('no such model')"))
    async with supervising(tmp_path, spec, dummy("b")) as supervisor:
        assert not await supervisor.settled()
        entry = supervisor.status()[0]
        assert entry.restarts == 0
        assert entry.detail == "exited with status 1\nno such model"


async def test_a_program_that_does_not_exist_is_given_up(tmp_path: Path, dummy: Dummy) -> None:
    async with supervising(tmp_path, dummy("a", argv=("/nonexistent",))) as supervisor:
        assert not await supervisor.settled()
        assert "No such file" in supervisor.status()[0].detail


async def test_one_killed_while_starting_is_tried_again(tmp_path: Path, dummy: Dummy) -> None:
    marker = tmp_path / "marker"
    kill_once = (
        "import os, signal\n"
        f"if not os.path.exists({str(marker)!r}):\n"
        f"    open({str(marker)!r}, 'w').close()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    healthy = dummy("a")
    spec = dummy("a", argv=(*healthy.argv[:2], kill_once + healthy.argv[2]))
    async with supervising(tmp_path, spec) as supervisor:
        assert await supervisor.settled()
        assert supervisor.status()[0].restarts == 1


async def test_one_that_ignores_sigterm_is_killed(tmp_path: Path, dummy: Dummy) -> None:
    stubborn = "import signal; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True)\n"
    spec = dummy("a", stubborn + "while True: time.sleep(1)")
    async with supervising(tmp_path, spec, grace=0.2) as supervisor:
        await until(lambda: "deaf" in (tmp_path / "a.log").read_text())
        pid = supervisor.status()[0].pid
    assert not alive(pid)


async def test_one_that_others_need_ends_last(tmp_path: Path, dummy: Dummy) -> None:
    order = tmp_path / "order"
    note = (
        "import signal\n"
        "def end(*_):\n"
        f"    open({str(order)!r}, 'a').write(NAME); sys.exit()\n"
        "signal.signal(15, end); print('set', flush=True)\n"
        "while True: time.sleep(1)\n"
    )
    needed = dummy("n", note.replace("NAME", "'n'"), outlives=True)
    needing = dummy("m", note.replace("NAME", "time.sleep(0.1) or 'm'"))
    async with supervising(tmp_path, needed, needing):
        await until(lambda: all("set" in (tmp_path / f"{name}.log").read_text() for name in "nm"))
    assert order.read_text() == "mn"


async def test_grandchildren_do_not_stay(tmp_path: Path, dummy: Dummy) -> None:
    death.adopt_orphans()
    spec = dummy("a", "import subprocess; subprocess.Popen(['sleep', '1000']); sys.exit()")
    async with supervising(tmp_path, spec) as supervisor:
        await until(lambda: supervisor.status()[0].restarts > 0)
        assert marked(str(tmp_path))


async def test_stopping_does_not_wait_for_a_back_off(tmp_path: Path, dummy: Dummy) -> None:
    policy = RestartPolicy(initial=1000.0, maximum=1000.0)
    async with supervising(tmp_path, dummy("a", "sys.exit(3)"), policy=policy) as supervisor:
        await until(lambda: supervisor.status()[0].state is ProcessState.BACKOFF)
        stopping = supervisor.stop
        async with asyncio.timeout(10):
            await stopping()
        assert supervisor.status()[0].state is ProcessState.STOPPED
        supervisor._children.clear()
        supervisor._logs.clear()


@pytest.mark.parametrize("data", [b"\x00\xff" * 50_000, b"no end of line"])
async def test_output_of_any_kind_is_kept(tmp_path: Path, dummy: Dummy, data: bytes) -> None:
    (tmp_path / "data").write_bytes(data)
    copy = f"sys.stdout.buffer.write(open({str(tmp_path / 'data')!r}, 'rb').read())\n"
    spec = dummy("a", copy + "sys.stdout.flush(); time.sleep(1000)")
    async with supervising(tmp_path, spec):
        await until(lambda: data in (tmp_path / "a.log").read_bytes())


def roles(dummy: Dummy) -> dict[str, RoleSpec]:
    argv = dummy("x").argv
    return {name: RoleSpec(argv, {"ROLE": name}) for name in ("dit", "decoder")}


def role_of(pid: int) -> str:
    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    return next(v for v in variables if v.startswith(b"ROLE=")).decode().removeprefix("ROLE=")


async def test_a_process_is_started_when_it_is_told_to_and_stopped_and_started_again(
    tmp_path: Path, dummy: Dummy
) -> None:
    spare = dummy("spare", role="spare", roles=roles(dummy), autostart=False)
    async with supervising(tmp_path, dummy("a"), spare) as supervisor:
        assert await supervisor.settled(), "nobody waits for what does not start"
        assert supervisor.status()[1].state is ProcessState.STOPPED
        supervisor.change("start", "spare", "dit")
        await until(lambda: supervisor.status()[1].state is ProcessState.READY)
        first = supervisor.status()[1]
        assert (first.role, role_of(first.pid)) == ("dit", "dit")
        with pytest.raises(FailedPreconditionError):
            supervisor.change("start", "spare", "dit")
        supervisor.change("stop", "spare")
        assert supervisor.status()[1].state is ProcessState.STOPPING
        await until(lambda: supervisor.status()[1].state is ProcessState.STOPPED)
        assert not alive(first.pid)
        supervisor.change("start", "spare", "decoder")
        await until(lambda: supervisor.status()[1].state is ProcessState.READY)
        assert role_of(supervisor.status()[1].pid) == "decoder"


async def test_a_process_that_was_assigned_a_role_comes_back_with_it(
    tmp_path: Path, dummy: Dummy
) -> None:
    worker = dummy("worker", role="dit", roles=roles(dummy))
    async with supervising(tmp_path, worker) as supervisor:
        assert await supervisor.settled()
        (before,) = supervisor.status()
        supervisor.change("assign", "worker", "decoder")
        assert supervisor.status()[0].pid == before.pid
        assert role_of(before.pid) == "dit"
        os.kill(before.pid, signal.SIGKILL)
        await until(lambda: supervisor.status()[0].restarts == 1)
        await until(lambda: supervisor.status()[0].state is ProcessState.READY)
        assert role_of(supervisor.status()[0].pid) == "decoder"


async def test_only_processes_with_roles_are_changed(tmp_path: Path, dummy: Dummy) -> None:
    worker = dummy("worker", role="dit", roles=roles(dummy))
    async with supervising(tmp_path, dummy("gateway"), worker) as supervisor:
        for command, name, role in (
            ("stop", "gateway", ""),
            ("stop", "nobody", ""),
            ("assign", "worker", "toaster"),
            ("explode", "worker", "dit"),
        ):
            with pytest.raises(InvalidArgumentError):
                supervisor.change(command, name, role)
