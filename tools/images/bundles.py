"""Containers that are confined as pods are, as runc wants them described. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

USER = 65532
_MASKED = ("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/sched_debug", "/sys/firmware")
_SET_BY_KERNEL = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@dataclass(frozen=True)
class ImageConfig:
    """What an image says about its process.

    Attributes:
        user: Whom it runs as, as "user:group" in numbers.
        environment: Its variables, each as "NAME=value".
        command: Program and arguments.
        directory: The one that it works in.
    """

    user: str
    environment: tuple[str, ...]
    command: tuple[str, ...]
    directory: str

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> ImageConfig:
        """Return what the `config` of an image configuration says."""
        return cls(
            user=config.get("User", ""),
            environment=tuple(config.get("Env") or ()),
            command=(*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())),
            directory=config.get("WorkingDir") or "/",
        )


@dataclass(frozen=True)
class Container:
    """A process in an image.

    Attributes:
        command: In the place of the image's own, where it is not empty.
        environment: Variables in addition to the image's.
        mounts: Directories of this machine that it may read, by where it sees them.
    """

    command: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    mounts: Mapping[str, Path] = field(default_factory=dict)


def describe(config: ImageConfig, container: Container, rootfs: Path) -> dict[str, Any]:
    """Return a configuration of the OCI runtime specification.

    The root file system is read-only, there are no capabilities and no way to gain any; /tmp,
    /dev/shm and the directory that the process works in are in memory. The network is this
    machine's.

    Args:
        config: What the image says.
        container: What is run.
        rootfs: Where the image's files are.
    """
    user, _, group = config.user.partition(":")
    added = [f"{name}={value}" for name, value in container.environment.items()]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": int(user or 0), "gid": int(group or 0)},
            "args": list(container.command or config.command),
            "env": [*config.environment, *added],
            "cwd": config.directory,
            "capabilities": {},
            "noNewPrivileges": True,
        },
        "root": {"path": str(rootfs), "readonly": True},
        "mounts": _mounts(config, container),
        "linux": {
            "namespaces": [{"type": name} for name in ("pid", "mount", "ipc", "uts")],
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_SET_BY_KERNEL),
        },
    }


def _mounts(config: ImageConfig, container: Container) -> list[dict[str, Any]]:
    safe = ["nosuid", "nodev"]
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        _memory("/dev", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _memory("/dev/shm", [*safe, "noexec", "mode=1777"]),
        _memory("/tmp", [*safe, "mode=1777"]),
        {"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "ro"]},
    ]
    if config.directory != "/":
        mounts.append(_memory(config.directory, [*safe, "mode=700", f"uid={USER}", f"gid={USER}"]))
    for destination, source in container.mounts.items():
        options = ["rbind", "ro", *safe]
        mounts.append(
            {"destination": destination, "type": "bind", "source": str(source), "options": options}
        )
    return mounts


def _memory(destination: str, options: list[str]) -> dict[str, Any]:
    return {
        "destination": destination,
        "type": "tmpfs",
        "source": "tmpfs",
        "options": options,
    }
