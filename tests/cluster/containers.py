"""Containers without a container runtime: what a pod's container is to its processes.

A network, process ids, shared memory and mounts of its own; user 65532 without a name, without
capabilities; a root file system that cannot be written to; no HOME. Needs root.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import disagfusion

USER = 65532
VOLUMES = Path("/mnt")
_CODE = Path(disagfusion.__file__).resolve().parents[1]


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


@dataclass(frozen=True)
class Volume:
    """A directory of the machine that a container sees at /mnt/NAME."""

    source: Path
    name: str
    writable: bool = False


@dataclass
class Container:
    """A process, the first one of its container.

    Attributes:
        address: Of its network.
        popen: Of what made its namespaces; ends with it, with its status.
        log: Its output.
    """

    address: str
    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """Of the first process, as the machine numbers it; 0 before there is one."""
        pid = self.popen.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if children else 0

    def handles(self, number: signal.Signals) -> bool:
        """Whether the first process has a handler for a signal."""
        try:
            status = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        except OSError:
            return False
        caught = next(line.split()[1] for line in status if line.startswith("SigCgt:"))
        return bool(int(caught, 16) >> (number - 1) & 1)

    def stop(self, number: int = signal.SIGTERM, timeout: float = 60) -> int:
        if self.popen.poll() is None and self.pid:
            os.kill(self.pid, number)
        return self.popen.wait(timeout)

    def end(self) -> None:
        """End it at once: with the first process all others of the container."""
        if self.popen.poll() is None:
            # Another user's process does not end with its parent, whatever unshare has asked for.
            if self.pid:
                os.kill(self.pid, signal.SIGKILL)
            else:
                self.popen.kill()
            self.popen.wait()

    def said(self) -> str:
        return self.log.read_text(errors="replace")


@dataclass
class Machine:
    """A bridge, and containers at it.

    Attributes:
        directory: For logs.
        number: Of its network, 10.213.NUMBER.0/24.
    """

    directory: Path
    number: int
    containers: list[Container] = field(default_factory=list)
    _networks: list[str] = field(default_factory=list)

    @property
    def bridge(self) -> str:
        return f"dfs{self.number}"

    def __enter__(self) -> Machine:
        ip("link", "add", self.bridge, "type", "bridge")
        ip("address", "add", f"10.213.{self.number}.1/24", "dev", self.bridge)
        ip("link", "set", self.bridge, "up")
        return self

    def __exit__(self, *exception: object) -> None:
        for container in self.containers:
            container.end()
        for name in self._networks:
            # Both ends of a link go with one of them, at once.
            with contextlib.suppress(subprocess.CalledProcessError):
                ip("link", "delete", f"{name}h")
            ip("netns", "delete", name)
        ip("link", "delete", self.bridge)

    def run(
        self,
        *arguments: str,
        settings: Mapping[str, object],
        volumes: Sequence[Volume] = (),
        shared_memory: str = "1m",
        own_processes: bool = True,
        group: Path | None = None,
    ) -> Container:
        """Start `python -m …` in a new container.

        Args:
            arguments: Of python.
            settings: By name without the prefix; ADDRESS in them is the container's.
            volumes: What it sees.
            shared_memory: Size of its /dev/shm.
            own_processes: Whether process ids and shared memory are its own, and not the machine's.
            group: A control group's directory that it is put into.
        """
        name, address = self._network()
        environment = {
            "PATH": "/usr/bin:/bin",
            "OMP_NUM_THREADS": "1",
            **{
                f"DISAGFUSION_{key.upper()}": str(value).replace("ADDRESS", address)
                for key, value in settings.items()
            },
        }
        script = "\n".join(
            [
                "set -e",
                *([f"echo $$ > {group}/cgroup.procs"] if group else []),
                "mount --make-rprivate /",
                *_reachable(Path(sys.base_prefix)),
                *_reachable(_CODE),
                f"mount -t tmpfs -o mode=755 volumes {VOLUMES}",
                *(line for volume in volumes for line in _mounted(volume)),
                f"mount -t tmpfs -o size={shared_memory},mode=1777 shm /dev/shm",
                "mount -t tmpfs -o size=64m,mode=1777 tmp /tmp",
                "mount -o remount,bind,ro /",
                f"cd /; exec setpriv --reuid {USER} --regid {USER} --clear-groups --no-new-privs"
                " --inh-caps=-all --ambient-caps=-all --bounding-set=-all -- env -i "
                + shlex.join(f"{key}={value}" for key, value in environment.items())
                + f" {shlex.join([sys.executable, '-P', '-m', *arguments])}",
            ]
        )
        own = ["--pid", "--ipc", "--mount-proc"] if own_processes else []
        log = self.directory / f"{name}.log"
        with log.open("wb") as output:
            popen = subprocess.Popen(
                ["nsenter", f"--net=/run/netns/{name}", "unshare", "--fork", "--kill-child",
                 "--mount", "--uts", *own, "sh", "-c", script],
                stdout=output, stderr=output,
            )  # fmt: skip
        container = Container(address, popen, log)
        self.containers.append(container)
        return container

    def _network(self) -> tuple[str, str]:
        host = len(self._networks) + 2
        name = f"{self.bridge}-{host}"
        ip("netns", "add", name)
        self._networks.append(name)
        ip("link", "add", f"{name}h", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", f"{name}h", "master", self.bridge, "up")
        address = f"10.213.{self.number}.{host}"
        ip("-n", name, "address", "add", f"{address}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "link", "set", "lo", "up")
        return name, address


def _mounted(volume: Volume) -> Iterator[str]:
    target = shlex.quote(str(VOLUMES / volume.name))
    yield f"mkdir {target}"
    yield f"mount --bind {shlex.quote(str(volume.source))} {target}"
    if not volume.writable:
        yield f"mount -o remount,bind,ro {target}"


def _reachable(path: Path) -> Iterator[str]:
    """Let user 65532 come to what the image would have elsewhere, such as below /root."""
    closed = [parent for parent in reversed(path.parents) if not parent.stat().st_mode & 0o001]
    if closed:
        wanted, parent = shlex.quote(str(path)), shlex.quote(str(closed[0]))
        yield f"mount --bind {wanted} {VOLUMES}"
        yield f"mount -t tmpfs -o mode=755 reachable {parent}"
        yield f"mkdir -p {wanted}"
        yield f"mount --move {VOLUMES} {wanted}"
