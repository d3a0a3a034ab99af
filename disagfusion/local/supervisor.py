"""Keeps processes alive, and ends every one of them when it ends itself.

All of it runs in the main thread: the kernel ties a child to the *thread* that started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from disagfusion.errors import FailedPreconditionError, InvalidArgumentError
from disagfusion.local import death
from disagfusion.local.logs import LogFile, last_lines
from disagfusion.local.plan import Plan, ProcessSpec, ProcessState, ProcessStatus, RestartPolicy
from disagfusion.local.watchdog import silences

_READY_POLL_SECONDS = 0.02
_PIPE_BYTES = 65536


@contextlib.contextmanager
def _reading(descriptor: int) -> Iterator[asyncio.Event]:
    """An event that is set once the descriptor is readable."""
    loop = asyncio.get_running_loop()
    event = asyncio.Event()

    def ready() -> None:
        loop.remove_reader(descriptor)
        event.set()

    loop.add_reader(descriptor, ready)
    try:
        yield event
    finally:
        loop.remove_reader(descriptor)


async def _wait_exit(pid: int) -> None:
    descriptor = os.pidfd_open(pid)
    try:
        with _reading(descriptor) as exited:
            await exited.wait()
    finally:
        os.close(descriptor)


def describe_exit(code: int) -> str:
    """How a process ended, for people; `code` as `subprocess` reports it."""
    if code >= 0:
        return f"exited with status {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


class Child:
    """One process that is started, watched and started again.

    Args:
        spec: What to run.
        policy: What to do when it ends.
        log: Where its output goes.
        journal: Where the supervisor says what happens to it.
        changed: Set at each change of state.

    Attributes:
        settled: Set once the process has been ready or has ended.
    """

    def __init__(
        self,
        spec: ProcessSpec,
        policy: RestartPolicy,
        log: LogFile,
        journal: LogFile,
        changed: asyncio.Event,
    ) -> None:
        self.spec = spec
        state = ProcessState.STARTING if spec.autostart else ProcessState.STOPPED
        self.status = ProcessStatus(spec.name, spec.role, state, 0, 0)
        self._policy = policy
        self._log = log
        self._journal = journal
        self._changed = changed
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = asyncio.Event()
        self.settled = asyncio.Event()
        self._ready_at: float | None = None
        self._was_ready = False
        self._ended = ""
        self._verdict = ""

    def _set(self, **changes: Any) -> None:
        self.status = dataclasses.replace(self.status, **changes)
        self._changed.set()

    def assign(self, role: str) -> None:
        """Let it be something else from its next start on; what runs is left as it is.

        Raises:
            InvalidArgumentError: It cannot be that.
        """
        if role != self.spec.role and role not in self.spec.roles:
            raise InvalidArgumentError(
                "role", f"{self.spec.name} cannot be {role!r}", expected=", ".join(self.spec.roles)
            )
        self._set(role=role)

    def begin(self) -> None:
        """Let `keep` run it, also after it was stopped."""
        self._stopping.clear()
        self.settled.clear()
        self._set(state=ProcessState.STARTING)

    async def keep(self) -> None:
        """Run it, again and again, until it is stopped or given up."""
        failures = 0
        while not self._stopping.is_set():
            code = await self._run_once()
            self.settled.set()
            if self._stopping.is_set():
                break
            healthy = self._ready_at is not None and (
                time.monotonic() - self._ready_at >= self._policy.healthy_after
            )
            failures = 1 if healthy else failures + 1
            delay = self._policy.delay(failures, proven=self._was_ready)
            if code >= 0 and not self._was_ready:
                delay = None
            detail = self._ended = self._verdict or describe_exit(code)
            self._say(f"{detail}; " + ("given up" if delay is None else f"again in {delay} s"))
            if delay is None:
                self._set(state=ProcessState.FAILED, pid=0, detail=self._explain(detail))
                return
            self._set(state=ProcessState.BACKOFF, pid=0, detail=detail)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
                break
            self._set(state=ProcessState.STARTING, restarts=self.status.restarts + 1)
        self._set(state=ProcessState.STOPPED, pid=0)

    def _explain(self, detail: str) -> str:
        return "\n".join([detail, *last_lines(self._log.path, 20)])

    def _say(self, text: str) -> None:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S")
        self._journal.write(f"{stamp} {self.spec.name}: {text}\n".encode())

    async def _run_once(self) -> int:
        self._ready_at, self._verdict = None, ""
        try:
            process = self._spawn()
        except OSError as error:
            self._log.write(f"{self.spec.argv[0]}: {error.strerror}\n".encode())
            return 127
        self._process = process
        self._set(pid=process.pid)
        self._say(f"started as process {process.pid}")
        readiness = asyncio.create_task(self._watch_ready(process.pid))
        try:
            await _wait_exit(process.pid)
        finally:
            readiness.cancel()
        self._was_ready = self._was_ready or self._read_ready() is not None
        self._process = None
        return process.wait()

    def _spawn(self) -> subprocess.Popen[bytes]:
        if self.spec.ready_file:
            Path(self.spec.ready_file).unlink(missing_ok=True)
        reader, writer = os.pipe()
        role = self.spec.roles.get(self.status.role)
        argv = self.spec.argv if role is None else role.argv
        environment = {**os.environ, **self.spec.environment, **(role.environment if role else {})}
        if self.spec.ready_file:
            environment["DISAGFUSION_READY_FILE"] = self.spec.ready_file
        if self.spec.pin_address and self.status.address:
            environment[self.spec.pin_address] = self.status.address
        try:
            process = subprocess.Popen(  # noqa: S603 -- the plan is the owner's
                argv,
                stdin=subprocess.DEVNULL,
                stdout=writer,
                stderr=writer,
                env=environment,
                preexec_fn=death.before_exec(),
            )
        except OSError:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        os.set_blocking(reader, False)
        asyncio.get_running_loop().add_reader(reader, self._pump, reader)
        return process

    def _pump(self, reader: int) -> None:
        data = os.read(reader, _PIPE_BYTES)
        if data:
            self._log.write(data)
        else:
            asyncio.get_running_loop().remove_reader(reader)
            os.close(reader)

    async def _watch_ready(self, pid: int) -> None:
        while (told := self._read_ready()) is None:  # noqa: ASYNC110 -- a file has no event
            await asyncio.sleep(_READY_POLL_SECONDS)
        self._ready_at = time.monotonic()
        self._was_ready = True
        self.settled.set()
        stopping = self._stopping.is_set()
        self._set(
            state=ProcessState.STOPPING if stopping else ProcessState.READY,
            address=str(told.get("address") or ""),
            metrics_address=str(told.get("metrics_address") or ""),
        )
        self._say(f"process {pid} is ready {self.status.address}")
        if self.spec.heartbeat:
            await self._watch_life()

    async def _watch_life(self) -> None:
        """Say when the process gives no sign of life and when it does again; end it if it stays."""
        policy = self._policy
        async for silence in silences(Path(self.spec.ready_file), policy.look_seconds):
            problem = f"gave no sign of life for {silence:g} s"
            silent = self.status.state is ProcessState.SILENT
            if silence >= policy.killed_after:
                self._verdict = problem
                self.kill()
                return
            if silence >= policy.silent_after and self.status.state is ProcessState.READY:
                self._set(state=ProcessState.SILENT, detail=problem)
                self._say(problem)
            elif silence < policy.silent_after and silent:
                self._set(state=ProcessState.READY, detail=self._ended)
                self._say("gives signs of life again")

    def _read_ready(self) -> dict[str, Any] | None:
        if not self.spec.ready_file:
            return {}
        try:
            told: dict[str, Any] = json.loads(Path(self.spec.ready_file).read_text())
        except (FileNotFoundError, ValueError):
            return None  # not there, or not whole yet
        return told

    def stop(self) -> None:
        """Ask it to end, and do not start it again."""
        self._stopping.set()
        if self._process is not None:
            self._set(state=ProcessState.STOPPING)
            self._process.terminate()

    def kill(self) -> None:
        """End it without asking."""
        if self._process is not None:
            self._process.kill()


class Supervisor:
    """Runs a plan's processes.

    Args:
        plan: What to run.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._changed = asyncio.Event()
        logs = Path(plan.log_directory)
        journal = LogFile(logs / "supervisor.log", echo=plan.echo)
        self._logs = [journal]
        self._children: list[Child] = []
        for spec in plan.processes:
            log = LogFile(logs / f"{spec.name}.log", echo=plan.echo)
            self._logs.append(log)
            self._children.append(Child(spec, plan.policy, log, journal, self._changed))
        self._tasks: dict[Child, asyncio.Task[None]] = {}
        self._ending = False

    def start(self) -> None:
        """Start every process, in the plan's order.

        The first takes longest and has a core of its own until it is ready; the others start on
        the rest, each when there is one.
        """
        turns = asyncio.Semaphore(max(2, len(os.sched_getaffinity(0))))
        for child in self._children:
            if child.spec.autostart:
                self._tasks[child] = asyncio.create_task(self._keep(child, turns))

    async def _keep(self, child: Child, turns: asyncio.Semaphore) -> None:
        async with turns:
            task = asyncio.create_task(child.keep())
            settled = asyncio.create_task(child.settled.wait())
            await asyncio.wait({task, settled}, return_when=asyncio.FIRST_COMPLETED)
            settled.cancel()
        await task

    def status(self) -> list[ProcessStatus]:
        """What each process does now, in the plan's order."""
        return [child.status for child in self._children]

    async def settled(self) -> bool:
        """Wait until every process is ready (True) or one has been given up (False)."""
        while True:
            states = {child.status.state for child in self._children} - {ProcessState.STOPPED}
            if ProcessState.FAILED in states:
                return False
            if states == {ProcessState.READY}:
                return True
            self._changed.clear()
            await self._changed.wait()

    def change(self, command: str, name: str, role: str = "") -> None:
        """Start, stop or assign one of the processes.

        Args:
            command: "start" it in a role; "stop" it, not to be started again; or "assign" it the
                role that it has from its next start on.
            name: The process.
            role: Needed for all but "stop".

        Raises:
            InvalidArgumentError: There is no such command, process or role.
            FailedPreconditionError: Everything is ending.
        """
        found = [child for child in self._children if child.spec.name == name]
        if not found or not found[0].spec.roles:
            raise InvalidArgumentError("name", repr(name), expected="a stage service's process")
        if self._ending:
            raise FailedPreconditionError("the supervisor ends", reason="ENDING")
        child = found[0]
        task = self._tasks.get(child)
        running = task is not None and not task.done()
        match command:
            case "assign":
                child.assign(role)
            case "stop":
                child.stop()
            case "start" if running:
                raise FailedPreconditionError(f"{name} runs", reason="RUNNING")
            case "start":
                child.assign(role)
                child.begin()
                self._tasks[child] = asyncio.create_task(child.keep())
            case _:
                raise InvalidArgumentError("command", command, expected="start, stop or assign")

    async def stop(self) -> None:
        """End every process, then whatever descendants they left, then delete."""
        self._ending = True
        running = self._tasks
        for last in (False, True):
            group = {c: task for c, task in running.items() if c.spec.outlives is last}
            for child in group:
                child.stop()
            if not group:
                continue
            await asyncio.wait(group.values(), timeout=self._plan.stop_grace)
            for child in group:
                child.kill()
            await asyncio.gather(*group.values())
        self.reap(kill=True)
        for log in self._logs:
            log.close()
        for directory in self._plan.remove:
            shutil.rmtree(directory, ignore_errors=True)

    def reap(self, *, kill: bool = False) -> None:
        """Collect orphaned descendants that have ended.

        Args:
            kill: End those that have not.
        """
        known = {child.status.pid for child in self._children}
        while orphans := [pid for pid in death.children() if pid not in known]:
            for pid in orphans:
                if kill:
                    os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0 if kill else os.WNOHANG)
            if not kill:
                return
