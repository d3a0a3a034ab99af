"""What is changed on the machine itself, so that it can be put back."""

from __future__ import annotations

import json
from pathlib import Path

from tools.cluster import commands
from tools.cluster.errors import ClusterError

_SYSCTLS = Path("/proc/sys")
# What a kubelet sets when it starts.
_SET_BY_KUBELET = (
    "kernel/keys/root_maxbytes",
    "kernel/keys/root_maxkeys",
    "kernel/panic",
    "kernel/panic_on_oops",
    "vm/overcommit_memory",
    "vm/panic_on_oom",
)


def remember_settings(path: Path, sysctls: Path = _SYSCTLS) -> None:
    """Write the kernel settings that will be changed to a file."""
    found = {
        name: (sysctls / name).read_text().strip()
        for name in _SET_BY_KUBELET
        if (sysctls / name).exists()
    }
    path.write_text(json.dumps(found, indent=2) + "\n")


def restore_settings(path: Path, sysctls: Path = _SYSCTLS) -> list[str]:
    """Put back what `remember_settings` wrote; return the names of those that differed."""
    try:
        remembered = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return []
    changed = []
    for name, value in remembered.items():
        if name in _SET_BY_KUBELET and (sysctls / name).read_text().strip() != value:
            (sysctls / name).write_text(value)
            changed.append(name)
    return changed


def mounts(below: Path, table: Path = Path("/proc/mounts")) -> list[Path]:
    """Return what is mounted at a directory and below it, the deepest first."""
    found = []
    for line in table.read_text().splitlines():
        # Spaces and the like are written as octal numbers.
        place = Path(line.split()[1].encode().decode("unicode_escape"))
        if place == below or below in place.parents:
            found.append(place)
    return sorted(found, reverse=True)


def unmount(below: Path) -> int:
    """Unmount everything at a directory and below it; return how much that was.

    Raises:
        ClusterError: Something stays mounted.
    """
    places = mounts(below)
    for place in places:
        commands.succeeds("umount", "--lazy", place)
    if left := mounts(below):
        raise ClusterError(f"{left[0]} cannot be unmounted")
    return len(places)


def mount_memory(directory: Path, gigabytes: int) -> None:
    """Mount a file system in memory, which is gone at once when the cluster is."""
    size = f"size={gigabytes}g,mode=755"
    commands.run("mount", "-t", "tmpfs", "-o", size, "disagfusion-cluster", directory)
