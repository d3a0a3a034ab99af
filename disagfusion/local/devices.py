"""Which worker of the embedded runtime computes on what."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from disagfusion.errors import InvalidArgumentError
from disagfusion.stage.devices import emulated_pool, is_emulated

if TYPE_CHECKING:
    from disagfusion.emulation.roles import MonolithKind
    from disagfusion.scheduling.profile import Profile


def resolve_devices(
    device: str | Mapping[str, str] | None, replicas: Mapping[str, int]
) -> dict[str, str]:
    """Return the devices by worker; workers that are not in it take what the settings say.

    Args:
        device: One for all, or by stage ("dit") or worker ("dit-3"), which goes before its stage.
        replicas: How many workers of each stage.

    Raises:
        InvalidArgumentError: There is no such stage or worker.
    """
    if device is None:
        return {}
    given = dict.fromkeys(replicas, device) if isinstance(device, str) else device
    found: dict[str, str] = {}
    for stage, count in replicas.items():
        for worker in (f"{stage}-{index}" for index in range(count)):
            chosen = given.get(worker, given.get(stage))
            if chosen is not None:
                found[worker] = chosen
    unknown = set(given) - set(replicas) - set(found)
    if unknown:
        raise InvalidArgumentError(
            "device",
            f"there is no {' and no '.join(sorted(unknown))}",
            expected=", ".join([*replicas, *found]),
        )
    return found


@dataclass(frozen=True, slots=True)
class Emulation:
    """A system without accelerators.

    Attributes:
        profile: What its stages cost.
        name: Of its pipeline, where no other is given.
        time_scale: Seconds for one second of the profile.
        time_noise: A job's seconds vary by up to this share.
        monolith: "resident" or "offloading" where DiT workers take the whole pipeline's time.
    """

    profile: Profile
    name: str
    time_scale: float
    time_noise: float
    monolith: MonolithKind | None

    def settings(self, directory: Path) -> dict[str, str]:
        """Write the profile to a directory; return the settings of its workers."""
        # A copy: what a worker reads that is started again must be what the others have read.
        file = directory / "profile.json"
        file.write_text(json.dumps(self.profile.model_dump(exclude_none=True)))
        return {
            "profile": str(file),
            "time_scale": repr(self.time_scale),
            "time_noise": repr(self.time_noise),
            "monolith": self.monolith or "",
        }


def resolve_emulation(
    profile: str | os.PathLike[str] | Profile | None,
    devices: Mapping[str, str],
    replicas: Mapping[str, int],
    *,
    time_scale: float,
    time_noise: float,
    monolith: str | None,
) -> Emulation | None:
    """Return how a system is emulated; None for a real one.

    Args:
        profile: The profile or its file.
        devices: As `resolve_devices` returns them.
        replicas: How many workers of each stage.
        time_scale: See `Emulation`.
        time_noise: See `Emulation`.
        monolith: See `Emulation`.

    Raises:
        InvalidArgumentError: Only some workers are emulated, profile and devices do not fit each
            other, or a number is absurd.
    """
    emulated = {worker for worker, device in devices.items() if is_emulated(device)}
    if profile is None:
        if emulated or monolith:
            raise InvalidArgumentError(
                "profile", "is missing", expected="a profile's file, for emulated devices"
            )
        return None
    if len(emulated) < sum(replicas.values()):
        raise InvalidArgumentError(
            "device", "not every worker's is emulated", expected="emulated:POOL, with a profile"
        )
    if not 0 < time_scale <= 1000:
        raise InvalidArgumentError("time_scale", str(time_scale), expected="above 0, at most 1000")
    if not 0 <= time_noise < 1:
        raise InvalidArgumentError("time_noise", str(time_noise), expected="0 to below 1")
    # Only an emulated system needs what reads profiles.
    from disagfusion.emulation.profiles import PREFIX, read_profile

    name = PREFIX
    if isinstance(profile, str | os.PathLike):
        path = Path(profile)
        name, profile = f"{PREFIX}-{path.stem}", read_profile(path)
    kind = _kind(monolith)
    _check_pools(profile, devices, kind)
    return Emulation(profile, name, time_scale, time_noise, kind)


def _kind(monolith: str | None) -> MonolithKind | None:
    match monolith:
        case None:
            return None
        case "resident":
            return "resident"
        case "offloading":
            return "offloading"
    raise InvalidArgumentError("monolith", repr(monolith), expected="resident or offloading")


def _check_pools(
    profile: Profile, devices: Mapping[str, str], monolith: MonolithKind | None
) -> None:
    from disagfusion.emulation.accelerator import Accelerator
    from disagfusion.emulation.roles import role_of
    from disagfusion.pipeline.stages import Stage

    for worker, device in devices.items():
        role = role_of(Stage(worker.rpartition("-")[0]), monolith)
        Accelerator(profile, emulated_pool(device)).check_names(role.stages)
