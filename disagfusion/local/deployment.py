"""Which processes the embedded runtime consists of, and their settings. Pure but for paths."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from disagfusion.errors import InvalidArgumentError
from disagfusion.local.balance import SPARE, ResolvedBalance
from disagfusion.local.hold import HOLD_FILE
from disagfusion.local.plan import ProcessSpec, RoleSpec
from disagfusion.stage.devices import is_emulated

DIGITS = Path(__file__).parent / "digits"
"""The model that is used when none is named."""

STAGES = ("encoder", "dit", "decoder")


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is served on this machine.

    Attributes:
        model: A diffusers directory or a hub id; empty where the system is emulated.
        pipeline: The name under which it is served.
        replicas: How many services of each stage.
        threads: Threads of each engine by stage.
        transport: What carries tensors: "ucx" or "tcp".
        listen: Where the gateway listens.
        run_directory: Private directory for sockets and ready files.
        data_directory: Where jobs and results are kept.
        settings: Further settings for every process, by name without the prefix.
        environment: Further environment variables by process name.
        fork_server: Unix socket of a fork server that runs already; one of its own where empty.
        devices: What workers compute on, by process name; the settings' for the others.
        balance: How it is balanced; None where the workers stay what they are.
    """

    model: str
    pipeline: str
    replicas: Mapping[str, int]
    threads: Mapping[str, int]
    transport: str
    listen: str
    run_directory: Path
    data_directory: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    fork_server: str = ""
    devices: Mapping[str, str] = field(default_factory=dict)
    balance: ResolvedBalance | None = None

    def processes(self) -> tuple[ProcessSpec, ...]:
        """The processes; the one that takes longest to start comes first."""
        fronts = [
            self._worker(f"{stage}-{index}", stage)
            for stage in STAGES
            for index in range(self.replicas[stage])
        ]
        own = () if self.fork_server else (self._fork_server(),)
        if self.balance is None:
            return (*own, self._gateway(), *fronts)
        spares = [
            dataclasses.replace(self._worker(name, "dit"), role=SPARE, autostart=False)
            for name in self.balance.spares
        ]
        return (*own, self._gateway(), *fronts, *spares, self._balancer(self.balance))

    @property
    def control(self) -> str:
        """The supervisor's control socket; empty where nobody needs it."""
        return str(self.run_directory / "control") if self.balance else ""

    @property
    def internal_address(self) -> str:
        """Where the gateway answers balancers; empty where there is none."""
        return f"unix:{self._socket('internal')}" if self.balance else ""

    def _socket(self, name: str) -> str:
        return str(self.run_directory / f"{name}.sock")

    def _spec(self, name: str, role: str, module: str, settings: Mapping[str, str]) -> ProcessSpec:
        environment = {
            # Fork-safe and frugal: numerical libraries start no threads of their own accord.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            **{f"DISAGFUSION_{key.upper()}": value for key, value in settings.items()},
            **{f"DISAGFUSION_{key.upper()}": value for key, value in self.settings.items()},
            **self.environment.get(name, {}),
        }
        return ProcessSpec(
            name=name,
            role=role,
            argv=(sys.executable, "-P", "-m", module),
            environment=environment,
            ready_file=str(self.run_directory / f"{name}.json"),
            pin_address="DISAGFUSION_LISTEN" if role == "gateway" else "",
            # Fronts may need their engines to finish what they have.
            outlives=role == "forkserver",
            heartbeat=role in STAGES,
        )

    def _fork_server(self) -> ProcessSpec:
        settings = {"listen": self._socket("forkserver"), "model": self.model}
        if any(is_emulated(device) for device in self.devices.values()):
            settings["preload"] = "emulated"
        return self._spec("forkserver", "forkserver", "disagfusion.local.forkserver", settings)

    def _gateway(self) -> ProcessSpec:
        names = [f"{stage}-{i}" for stage in STAGES for i in range(self.replicas[stage])]
        names += self.balance.spares if self.balance else ()
        workers = ",".join(f"{name}=unix:{self._socket(name)}" for name in names)
        settings = {
            "listen": self.listen,
            "workers": workers,
            "database": f"sqlite:///{self.data_directory / 'jobs.sqlite3'}",
            "results": str(self.data_directory / "results"),
            "pipeline": self.pipeline,
            "metrics_listen": "127.0.0.1:0",
            "internal_listen": self.internal_address,
            "balance_budget": str(self.balance.budget if self.balance else 0),
        }
        return self._spec("gateway", "gateway", "disagfusion_gateway", settings)

    def _balancer(self, balance: ResolvedBalance) -> ProcessSpec:
        workers = {
            name: {"address": f"unix:{self._socket(name)}", "pool": pool}
            for name, pool in balance.pools.items()
        }
        settings = {
            "fleet_address": self.internal_address,
            "control": self.control,
            "balanced_workers": json.dumps(workers),
            "balance_profile": str(balance.write(self.run_directory)),
            "balance_budget": str(balance.budget),
            "balance": json.dumps(balance.settings),
            "balance_calibration": str(balance.calibrate).lower(),
            "balance_signals": balance.signals,
            "signals_window": str(balance.signals_window),
            "targets_file": str(self.data_directory / "targets.json") if balance.signals else "",
            "decision_log": str(self.data_directory / "decisions.jsonl"),
            "memory_file": str(self.data_directory / "balancer.json"),
            "hold_file": str(self.data_directory / HOLD_FILE),
            "pipeline": self.pipeline,
        }
        return self._spec("balancer", "balancer", "disagfusion.balancing", settings)

    def _worker(self, name: str, stage: str) -> ProcessSpec:
        settings = {
            "listen": f"unix:{self._socket(name)}",
            "name": name,
            "model": self.model,
            "pipeline": self.pipeline,
            "transport": self.transport,
            "threads": str(self.threads[stage]),
            "fork_server": self.fork_server or self._socket("forkserver"),
        }
        devices = {**(self.balance.devices if self.balance else {}), **self.devices}
        if name in devices:
            settings["device"] = devices[name]
        if self.balance is None:
            return self._spec(name, stage, f"disagfusion_{stage}", settings)
        settings["pool"] = self.balance.pools[name]
        settings["stage_threads"] = json.dumps(dict(self.threads))
        spec = self._spec(name, stage, f"disagfusion_{stage}", settings)
        roles = {
            role: RoleSpec(
                (*spec.argv[:-1], f"disagfusion_{role}"),
                {"DISAGFUSION_THREADS": str(self.threads[role])},
            )
            for role in STAGES
        }
        return dataclasses.replace(spec, roles=roles)


def default_threads(dits: int, cores: int | None = None) -> dict[str, int]:
    """Threads per engine by stage.

    Encoder and decoder compute for a small part of a job's time and get one each. The DiTs share
    what is left but for one core, which the fronts, the gateway and those two live on.

    Args:
        dits: How many DiT services there are.
        cores: Cores of the machine; those this process may use by default.
    """
    cores = cores or len(os.sched_getaffinity(0))
    return {"encoder": 1, "dit": max(1, (cores - 1) // dits), "decoder": 1}


def resolve_threads(threads: int | Mapping[str, int] | None, dits: int) -> dict[str, int]:
    """Judge how many threads engines are to have.

    Args:
        threads: One number for all, or by stage; those that are not named have the default.
        dits: How many DiT services there are.

    Raises:
        InvalidArgumentError: It names a stage that is none, or is below 1.
    """
    resolved = default_threads(max(1, dits))
    if isinstance(threads, int):
        resolved = dict.fromkeys(STAGES, threads)
    elif threads is not None:
        unknown = set(threads) - set(STAGES)
        if unknown:
            raise InvalidArgumentError("threads", ", ".join(unknown), expected=", ".join(STAGES))
        resolved.update(threads)
    if min(resolved.values()) < 1:
        raise InvalidArgumentError("threads", str(threads), expected="at least 1")
    return resolved
