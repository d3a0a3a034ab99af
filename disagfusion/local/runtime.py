"""`LocalRuntime`: a whole deployment on this machine, for as long as a `with` block lasts."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import time
import weakref
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from disagfusion.errors import (
    DeadlineExceededError,
    FailedPreconditionError,
    InternalError,
    InvalidArgumentError,
)
from disagfusion.local import directories, readiness
from disagfusion.local.balance import Balance, ResolvedBalance, resolve_balance
from disagfusion.local.deployment import DIGITS, STAGES, Deployment, resolve_threads
from disagfusion.local.devices import Emulation, resolve_devices, resolve_emulation
from disagfusion.local.owner import SupervisorProcess
from disagfusion.local.plan import Plan, ProcessState, ProcessStatus, RestartPolicy

if TYPE_CHECKING:
    from disagfusion.scheduling.profile import Profile

__all__ = ["LocalRuntime", "ProcessStatus"]

_UNIX_PATH_BYTES = 107
_WAIT_SECONDS = 0.5
_POLL_SECONDS = 0.05
_NOT_WANTED = (ProcessState.STOPPED, ProcessState.STOPPING)


def _finish(
    owner: int, supervisor: SupervisorProcess, patience: float, directory: Path, locks: list[int]
) -> None:
    if os.getpid() != owner:
        return  # a fork of the owner
    supervisor.end(patience)
    shutil.rmtree(directory, ignore_errors=True)
    for lock in locks:
        os.close(lock)


class LocalRuntime:
    """Gateway and stage services as processes of this machine.

    Entering starts everything and waits until it can be used; leaving ends every process and
    removes every temporary file. The same happens when this process ends in any other way,
    `kill -9` included.

    Engines are forked by a process of its own that has imported torch and diffusers, or by the one
    that listens on the unix socket `DISAGFUSION_FORK_SERVER` in the environment: that saves the
    seconds of importing, see `disagfusion.local.forkserver`.

    With a `profile` and emulated devices there is no model: workers take the time that the profile
    says, and neither torch nor diffusers is imported anywhere; see docs/emulation.md.

    Args:
        model: A diffusers directory or a hub id; the small digits model by default.
        encoders: How many encoder services.
        dits: How many DiT services.
        decoders: How many decoder services.
        transport: What carries tensors between them: "ucx" or "tcp".
        listen: Where the gateway listens; port 0 takes a free one.
        data_dir: Where jobs and results are kept; a temporary directory by default.
        threads: Threads of each engine, one number for all or one by stage ("encoder", "dit",
            "decoder"); see `deployment.default_threads`.
        pipeline: The name under which the model is served; the directory's by default. That of an
            emulated one begins with "emulated".
        device: What the engines compute on, such as "cpu", "cuda:0" or "emulated:a10": one for
            all, or by stage ("dit") or worker ("dit-3").
        profile: What stages cost on emulated devices: a `disagfusion.scheduling.profile.Profile`
            or its file.
        time_scale: Seconds that emulated devices take for one second of the profile.
        time_noise: A job's seconds on an emulated device vary by up to this share.
        monolith: "resident" or "offloading": the emulated DiTs take the whole pipeline's time, for
            comparison.
        balance: Whether replicas move between the stages as the work shifts, and how; see
            docs/balancing.md. Real devices need a `Balance` with a profile.
        settings: Further settings for every process, such as `{"slots": "3"}`.
        environment: Further environment variables by process name, such as
            `{"dit-0": {"CUDA_VISIBLE_DEVICES": "1"}}`.
        echo: Whether the processes' logs also go to standard error.
        stop_grace: Seconds that processes get to end by themselves.
        ready_timeout: Seconds that entering waits.

    Raises:
        InvalidArgumentError: An argument is wrong.
        FailedPreconditionError: The port or the data directory is in use.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | None = None,
        *,
        encoders: int = 1,
        dits: int = 1,
        decoders: int = 1,
        transport: str = "ucx",
        listen: str = "127.0.0.1:0",
        data_dir: str | os.PathLike[str] | None = None,
        threads: int | Mapping[str, int] | None = None,
        pipeline: str | None = None,
        device: str | Mapping[str, str] | None = None,
        profile: str | os.PathLike[str] | Profile | None = None,
        time_scale: float = 1.0,
        time_noise: float = 0.0,
        monolith: str | None = None,
        balance: bool | Balance = False,
        settings: Mapping[str, str] | None = None,
        environment: Mapping[str, Mapping[str, str]] | None = None,
        echo: bool = False,
        stop_grace: float = 3.0,
        ready_timeout: float = 300.0,
    ) -> None:
        self._replicas = {"encoder": encoders, "dit": dits, "decoder": decoders}
        for stage, count in self._replicas.items():
            if count < 1:
                raise InvalidArgumentError(f"{stage}s", str(count), expected="at least 1")
        self._settings = dict(settings or {})
        chosen = self._settings.pop("device", None) if device is None else device
        self._devices = resolve_devices(chosen, self._replicas)
        self._emulation = resolve_emulation(
            profile,
            self._devices,
            self._replicas,
            time_scale=time_scale,
            time_noise=time_noise,
            monolith=monolith,
        )
        self._balance: ResolvedBalance | None = None
        if balance:
            self._balance = resolve_balance(
                balance if isinstance(balance, Balance) else Balance(),
                self._replicas,
                self._devices,
                self._emulation.profile if self._emulation else None,
                self._settings.pop("pool", None),
            )
        self._model = _resolve_model(model, self._emulation)
        self._pipeline = pipeline or (
            self._emulation.name if self._emulation else Path(self._model).name
        )
        self._threads = resolve_threads(threads, dits)
        self._transport = transport
        self._listen = listen
        self._data_dir = None if data_dir is None else Path(data_dir).absolute()
        self._environment = dict(environment or {})
        self._echo = echo
        self._stop_grace = stop_grace
        self._ready_timeout = ready_timeout
        self._internal_address = ""
        self._data: Path | None = None
        self._supervisor: SupervisorProcess | None = None
        self._finalizer: weakref.finalize[Any, Any] | None = None

    def start(self) -> None:
        """Start everything and return at once; `wait_ready` waits."""
        if self._supervisor is not None:
            raise FailedPreconditionError("the runtime has been started already")
        _check_listen(self._listen)
        _check_fork_server(self._fork_server())
        directories.sweep()
        directory, lock = directories.create_private()
        locks = [lock]
        try:
            supervisor = SupervisorProcess(self._plan(directory, locks), locks)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            for descriptor in locks:
                os.close(descriptor)
            raise
        self._supervisor = supervisor
        self._finalizer = weakref.finalize(
            self, _finish, os.getpid(), supervisor, self._stop_grace + 10.0, directory, locks
        )

    def _plan(self, directory: Path, locks: list[int]) -> Plan:
        longest = directory / "forkserver.sock"
        if len(os.fsencode(longest)) > _UNIX_PATH_BYTES:
            raise FailedPreconditionError(f"the temporary directory's path is too long: {longest}")
        data = self._data_dir
        if data is None:
            data = directory / "data"
            data.mkdir()
        else:
            data.mkdir(parents=True, exist_ok=True)
            held = directories.try_lock(data / "lock", create=True)
            if held is None:
                raise FailedPreconditionError(f"{data} is in use by another runtime")
            locks.append(held)
        for name in ("results", "logs"):
            (data / name).mkdir(exist_ok=True)
        self._data = data
        for log in (data / "logs").glob("*.log"):
            log.replace(log.with_suffix(".log.1"))  # what is in it is about processes of the past
        emulation = self._emulation.settings(directory) if self._emulation else {}
        deployment = Deployment(
            model=self._model,
            pipeline=self._pipeline,
            replicas=self._replicas,
            threads=self._threads,
            transport=self._transport,
            listen=self._listen,
            run_directory=directory,
            data_directory=data,
            settings={**emulation, **self._settings},
            environment=self._environment,
            fork_server=self._fork_server(),
            devices=self._devices,
            balance=self._balance,
        )
        self._internal_address = deployment.internal_address
        return Plan(
            parent=os.getpid(),
            processes=deployment.processes(),
            log_directory=str(data / "logs"),
            policy=RestartPolicy(),
            stop_grace=self._stop_grace,
            remove=(str(directory),),
            echo=self._echo,
            control=deployment.control,
        )

    def _ask(self, command: str, timeout: float = 0.0) -> list[ProcessStatus]:
        if self._supervisor is None:
            raise FailedPreconditionError("the runtime has not been started")
        return self._supervisor.ask(command, timeout)

    def status(self) -> list[ProcessStatus]:
        """What each process does now."""
        return self._ask("status")

    def wait_ready(self, timeout: float | None = None) -> None:
        """Wait until every process listens and every engine has loaded.

        Args:
            timeout: Seconds; the constructor's `ready_timeout` by default.

        Raises:
            InvalidArgumentError: The model cannot be loaded.
            InternalError: A process could not be started; the message says why.
            DeadlineExceededError: It took longer.
        """
        deadline = time.monotonic() + (self._ready_timeout if timeout is None else timeout)
        while True:
            left = deadline - time.monotonic()
            # In short pieces, so that other threads can ask meanwhile.
            processes = self._ask("wait", max(0.0, min(left, _WAIT_SECONDS)))
            late = self._late(processes)
            if not late:
                return
            if left <= 0:
                raise DeadlineExceededError(f"not ready in time: {', '.join(late)}")
            time.sleep(min(left, _POLL_SECONDS))

    def _late(self, processes: list[ProcessStatus]) -> list[str]:
        """Return what is not ready, or raise why it will not be."""
        for entry in processes:
            if entry.state == ProcessState.FAILED:
                raise _failure(entry)
            problem = entry.role in STAGES and readiness.load_problem(self._log(entry.name))
            if problem:
                raise self._unusable(entry.role, problem)
        here = [entry for entry in processes if entry.state not in _NOT_WANTED]
        late = [entry.name for entry in here if entry.state != ProcessState.READY]
        gateway = next(entry for entry in processes if entry.role == "gateway")
        if late or not gateway.metrics_address:
            return late
        replicas = Counter(entry.role for entry in here if entry.role in STAGES)
        return readiness.missing(replicas, readiness.ready_workers(gateway.metrics_address))

    def _unusable(self, role: str, problem: str) -> InvalidArgumentError:
        if self._emulation:
            return InvalidArgumentError("profile", f"the {role} cannot be emulated: {problem}")
        return InvalidArgumentError("model", f"{role} cannot load {self._model}: {problem}")

    def _fork_server(self) -> str:
        # One that runs already has imported torch, which emulated engines are to be without.
        return "" if self._emulation else os.environ.get("DISAGFUSION_FORK_SERVER", "")

    def _log(self, name: str) -> Path:
        return self.data_directory / "logs" / f"{name}.log"

    @property
    def address(self) -> str:
        """Where the gateway listens; empty before it is ready."""
        return next(entry.address for entry in self.status() if entry.role == "gateway")

    @property
    def data_directory(self) -> Path:
        """Where jobs, results, logs and what the balancer learned are.

        Raises:
            FailedPreconditionError: The runtime has not been started.
        """
        if self._data is None:
            raise FailedPreconditionError("the runtime has not been started")
        return self._data

    @property
    def internal_address(self) -> str:
        """Where the gateway answers balancers; empty where the system is not balanced."""
        return self._internal_address

    def stop(self) -> None:
        """End every process and remove every temporary file. May be called more than once."""
        if self._finalizer is not None:
            self._finalizer()

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


def _failure(entry: ProcessStatus) -> InternalError:
    how, *log = entry.detail.splitlines()
    return InternalError(
        f"{entry.name} {how}" + (f": {log[-1].strip()}" if log else ""),
        reason="PROCESS_FAILED",
        metadata={"process": entry.name, "log": "\n".join(log)},
    )


def _resolve_model(model: str | os.PathLike[str] | None, emulation: Emulation | None) -> str:
    if emulation is None:
        return _check_model(str(DIGITS if model is None else os.fspath(model)))
    if model is not None:
        raise InvalidArgumentError("model", "is given", expected="none beside a profile")
    return ""


def _check_model(model: str) -> str:
    path = Path(model)
    if not path.exists():
        # What is not a path may be a hub id: one slash, not at either end.
        if model.count("/") == 1 and not model.startswith((".", "/", "~")) and model[-1] != "/":
            return model
        raise InvalidArgumentError("model", f"there is no {model}", expected="a directory")
    known = ("model_index.json", "modular_model_index.json")
    if not any((path / name).is_file() for name in known):
        raise InvalidArgumentError(
            "model", f"{model} is no diffusers model", expected=f"a directory with {known[0]}"
        )
    return str(path.resolve())


def _check_listen(listen: str) -> None:
    """Say now, and in one line, what the gateway would find out in some seconds."""
    if listen.startswith("unix:"):
        return
    host, _, port = listen.rpartition(":")
    if not host or not port.isdigit() or int(port) > 65535:
        raise InvalidArgumentError("listen", listen, expected="HOST:PORT")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        raise InvalidArgumentError("listen", f"{listen}: {error.strerror}") from error
    with socket.socket(found[0][0], socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(found[0][4])
            probe.listen()
        except OSError as error:
            reason = "in use" if error.errno == errno.EADDRINUSE else str(error.strerror)
            raise FailedPreconditionError(f"{listen}: {reason}") from error


def _check_fork_server(address: str) -> None:
    """Say now what the fronts would find out each time that they want an engine."""
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(address)
        except OSError as error:
            raise FailedPreconditionError(
                f"DISAGFUSION_FORK_SERVER: nobody listens at {address} ({error.strerror or error});"
                " start `python -m disagfusion.local.forkserver` there, or unset it"
            ) from error
