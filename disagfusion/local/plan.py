"""What a supervisor is told to run, and what it says about it. Plain values and their JSON."""

from __future__ import annotations

import dataclasses
import enum
import json
from dataclasses import dataclass, field
from typing import Any


class ProcessState(enum.StrEnum):
    """Where a supervised process stands."""

    STARTING = "starting"
    READY = "ready"
    SILENT = "silent"
    """It was ready, but gives no sign of life."""
    BACKOFF = "backoff"
    FAILED = "failed"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class RoleSpec:
    """What a process runs in one of the roles that it may have.

    Attributes:
        argv: Program and arguments.
        environment: Added to that of the process's specification.
    """

    argv: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """One process to keep alive.

    Attributes:
        name: Unique within the plan, such as "dit-0".
        role: What it is, such as "dit".
        argv: Program and arguments.
        environment: Added to the supervisor's own environment.
        ready_file: Where the process writes its JSON once it listens; the path is passed on as
            `DISAGFUSION_READY_FILE`. Empty: it counts as ready as soon as it runs.
        pin_address: The environment variable that a restarted process gets its predecessor's
            address in, so that clients find it where it was. Empty: none.
        outlives: Whether it is asked to end only after all others have.
        roles: What it may be told to be from its next start on, by name.
        autostart: Whether it runs from the beginning; otherwise when it is told to.
        heartbeat: Whether it touches its ready file every second for as long as it does anything;
            one that does not is started again.
    """

    name: str
    role: str
    argv: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)
    ready_file: str = ""
    pin_address: str = ""
    outlives: bool = False
    roles: dict[str, RoleSpec] = field(default_factory=dict)
    autostart: bool = True
    heartbeat: bool = False


@dataclass(frozen=True, slots=True)
class RestartPolicy:
    """How a supervisor deals with a process that ends.

    The n-th restart in a row waits `min(maximum, initial · 2ⁿ)` seconds. A process that was ready
    for `healthy_after` seconds starts again from n = 0. One that ended `limit` times in a row and
    was never ready is given up; one that was, never. An exit with a status before the process
    was ever ready is a mistake in its settings, which no restart mends: it is given up at once.
    One that gives no sign of life is killed, and so started again, after `killed_after`.

    Attributes:
        initial: Seconds before the first restart.
        maximum: Seconds at most.
        limit: Restarts in a row.
        healthy_after: Seconds.
        silent_after: Seconds without a sign of life after which a process counts as silent.
        killed_after: The same, after which it is killed.
        look_seconds: Between two looks for a sign of life.
    """

    initial: float = 0.1
    maximum: float = 5.0
    limit: int = 8
    healthy_after: float = 2.0
    silent_after: float = 10.0
    killed_after: float = 60.0
    look_seconds: float = 1.0

    def delay(self, failures: int, *, proven: bool = False) -> float | None:
        """Seconds until the restart after this many ends in a row; None to give up.

        Args:
            failures: Ends in a row.
            proven: Whether the process has ever been ready.
        """
        if failures > self.limit and not proven:
            return None
        return min(self.maximum, self.initial * 2.0 ** min(failures - 1, 30))


@dataclass(frozen=True, slots=True)
class Plan:
    """All that a supervisor needs to know.

    Attributes:
        parent: Process id of the owner; when it ends, everything ends.
        processes: In the order in which they are started.
        log_directory: Each process gets NAME.log here.
        policy: What happens when one ends.
        stop_grace: Seconds between asking the processes to end and killing them.
        remove: Directories to delete at the very end.
        echo: Whether logs also go to the supervisor's standard error.
        control: Unix socket on which processes of this user may start, stop and assign others;
            empty for none.
    """

    parent: int
    processes: tuple[ProcessSpec, ...]
    log_directory: str
    policy: RestartPolicy = RestartPolicy()
    stop_grace: float = 3.0
    remove: tuple[str, ...] = ()
    echo: bool = False
    control: str = ""

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Plan:
        """The inverse of `to_json`."""
        values: dict[str, Any] = json.loads(text)
        processes = tuple(_process(entry) for entry in values.pop("processes"))
        policy = RestartPolicy(**values.pop("policy"))
        remove = tuple(values.pop("remove"))
        return cls(processes=processes, policy=policy, remove=remove, **values)


def _process(entry: dict[str, Any]) -> ProcessSpec:
    roles = {
        name: RoleSpec(tuple(role["argv"]), role["environment"])
        for name, role in entry.pop("roles").items()
    }
    return ProcessSpec(**{**entry, "argv": tuple(entry["argv"]), "roles": roles})


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """What a supervised process does.

    Attributes:
        name: As in its specification.
        role: As in its specification.
        state: Where it stands.
        pid: Process id, 0 when none runs.
        restarts: How often it was started again.
        address: Where it listens, once ready.
        metrics_address: Where its metrics are, once ready; may be empty.
        detail: For people: how it ended last, empty if it never did.
    """

    name: str
    role: str
    state: ProcessState
    pid: int
    restarts: int
    address: str = ""
    metrics_address: str = ""
    detail: str = ""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ProcessStatus:
        """From `dataclasses.asdict`, by way of JSON."""
        return cls(**{**values, "state": ProcessState(values["state"])})
