"""Up and down."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tools.cluster import (
    cgroups,
    configs,
    controlplane,
    host,
    network,
    nodes,
    policies,
    programs,
)
from tools.cluster.addresses import PREFIX, Addresses, plan
from tools.cluster.errors import ClusterError
from tools.cluster.kubectl import Kubectl
from tools.cluster.layout import Layout
from tools.cluster.objects import add_volumes
from tools.cluster.options import Options, differences
from tools.cluster.processes import PROC, Processes, marked, wait_for
from tools.commands import install

_SERVICE_ACCOUNT_SECONDS = 60
_VOLUMES = 10
# Where containerd's helpers and the network plugins keep things, whatever they are told.
_PLUGIN_RESULTS = Path("/var/lib/cni/results")

Say = Callable[[str], None]


class Timer:
    """Says what was done and how long it took.

    Args:
        say: Where to say it.
    """

    def __init__(self, say: Say) -> None:
        self._say = say
        self._begin = self._last = time.monotonic()

    def done(self, what: str) -> None:
        """Say that a step was done, with its seconds."""
        now = time.monotonic()
        self._say(f"{what} ({now - self._last:.1f} s)")
        self._last = now

    def total(self) -> float:
        """Return the seconds since the beginning."""
        return time.monotonic() - self._begin


@contextlib.contextmanager
def locked(layout: Layout) -> Iterator[None]:
    """Let nobody else start or take down this cluster meanwhile."""
    layout.root.mkdir(parents=True, exist_ok=True)
    with (layout.root / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def processes_of(layout: Layout) -> Processes:
    """Return the programs of a cluster."""
    return Processes(layout.processes, layout.logs, layout.root)


def running(layout: Layout) -> bool:
    """Tell whether the cluster is up: it was started to the end, and its programs run.

    Raises:
        ClusterError: Some of its programs ended.
    """
    if not layout.options.exists() or not layout.kubeconfig.exists():
        return False
    processes = processes_of(layout)
    ended = [name for name in processes.names() if not processes.alive(name)]
    if ended and len(ended) < len(processes.names()):
        raise ClusterError(
            f"the cluster runs without {', '.join(ended)}: see {layout.logs}, or take it down"
            " with `make cluster-down`"
        )
    return not ended and bool(processes.names())


def up(layout: Layout, wanted: Mapping[str, Any], say: Say) -> None:
    """Start a cluster; nothing is left of it where that fails.

    One that runs is fine, unless something else is asked for.

    Args:
        layout: Where it lies.
        wanted: Options that are asked for; the others have their defaults.
        say: Where to say what happens.

    Raises:
        ClusterError: It cannot be started, another runs, or this one runs with other options.
    """
    options = Options(**wanted)
    with locked(layout):
        if running(layout):
            if others := differences(Options.load(layout.options), wanted):
                raise ClusterError(
                    f"the cluster runs already, and {', '.join(others)}:"
                    " take it down first, with `make cluster-down`"
                )
            say(f"the cluster runs already; export KUBECONFIG={layout.kubeconfig}")
            return
        if options.nodes:
            _require_root()
            layout.check()
        _down(layout, lambda line: None)
        try:
            _up(layout, options, say)
        except BaseException:
            _down(layout, lambda line: None)
            raise


def _require_root() -> None:
    if os.geteuid() != 0:
        raise ClusterError(
            "real nodes need root: network namespaces, mounts and control groups."
            " With --nodes 0 there is a control plane alone, without root"
        )


def _up(layout: Layout, options: Options, say: Say) -> None:
    timer, addresses = Timer(say), plan(options.node_names)
    if addresses.nodes:
        if packages := programs.missing():
            say(f"installing {', '.join(packages)} with apt-get")
            install(packages, error=ClusterError)
            timer.done("packages installed")
        # First: it is the mark by which no other cluster starts, and that everything is ours.
        network.create(layout.root, addresses)
        layout.run.mkdir(parents=True, exist_ok=True)
        host.mount_memory(layout.run, options.state_gigabytes)
        host.remember_settings(layout.run / "host.json")
    network.require_free(controlplane.ports(addresses, options))
    shutil.rmtree(layout.logs, ignore_errors=True)
    for directory in (layout.pki, layout.processes, layout.configs, layout.logs):
        directory.mkdir(parents=True, mode=0o700)
    controlplane.write_credentials(layout, addresses)
    timer.done("certificates made")
    processes, kubectl = processes_of(layout), Kubectl(layout.kubeconfig)
    controlplane.start_storage_and_api(layout, addresses, options, processes, kubectl)
    timer.done("etcd and API server ready")
    controllers = controlplane.start_controllers(layout, addresses, options, processes)
    if addresses.nodes:
        nodes.start(layout, addresses, options, processes, kubectl)
        timer.done(f"{len(addresses.nodes)} real nodes ready")
        if options.network_policies:
            policies.start(layout, addresses, processes)
            timer.done("network policies enforced")
        kubectl.apply([configs.storage_class()])
        add_volumes(layout, kubectl, _VOLUMES)
    if "kube-controller-manager" in controllers:
        seconds = f"--timeout={_SERVICE_ACCOUNT_SECONDS}s"
        kubectl("wait", "--for=create", "serviceaccount/default", seconds)
        timer.done("default service account there")
    if why := processes.why_not(*processes.names())():
        raise ClusterError(why)
    options.save(layout.options)
    say(f"up after {timer.total():.1f} s; export KUBECONFIG={layout.kubeconfig}")


def down(layout: Layout, say: Say) -> None:
    """End what `up` started and nothing else; what is not there is no error.

    Images stay in the nodes' stores, and logs in their directory. Volumes go.

    Raises:
        ClusterError: Somebody else started it, or something stays mounted.
    """
    with locked(layout):
        _down(layout, say)


def _down(layout: Layout, say: Say) -> None:
    timer, processes = Timer(say), processes_of(layout)
    owned = network.owned(layout.root)
    foreign = layout.run.exists() and layout.run.stat().st_uid != os.geteuid()
    if (owned or foreign) and os.geteuid() != 0:
        raise ClusterError(
            "somebody else, perhaps root, started the cluster: they can take it down"
        )
    # A kubelet would start again what ends.
    killed = processes.kill_all(first=lambda name: name.endswith("kubelet"))
    addresses = _addresses(layout) if owned else plan([])
    others = kill_others(layout)
    for node in addresses.nodes:
        cgroups.kill(node.cgroup)
        forget_sockets(layout, node.name)
    if killed or others:
        timer.done(f"{len(killed)} programs and {others} processes of theirs ended")
    restored = host.restore_settings(layout.run / "host.json")
    unmounted = host.unmount(layout.root)
    if unmounted:
        timer.done(f"{unmounted} file systems unmounted")
    for node in addresses.nodes:
        cgroups.remove(node.cgroup)
    removed = network.remove(layout.root)
    if owned:
        for result in _PLUGIN_RESULTS.glob(f"{PREFIX}-*"):
            result.unlink(missing_ok=True)
    if removed:
        timer.done(f"removed {', '.join(removed)}")
    if restored:
        say(f"restored {', '.join(restored)}")
    # What the next cluster's volumes hold is theirs.
    for directory in (layout.run, layout.volumes):
        shutil.rmtree(directory, ignore_errors=True)
    layout.kubeconfig.unlink(missing_ok=True)
    if killed or others or removed:
        say(f"down after {timer.total():.1f} s; logs are in {layout.logs}")
    else:
        say("nothing runs")


def _addresses(layout: Layout) -> Addresses:
    """Return the nodes that there are, or were to be: a start may have failed at any of them."""
    found = {
        path.name.removeprefix(f"{PREFIX}-") for path in network.NAMESPACES.glob(f"{PREFIX}-*")
    }
    found |= {path.name for path in layout.stores.glob("node*")}
    return plan(sorted(found))


def kill_others(layout: Layout, proc: Path = PROC) -> int:
    """Kill what programs of this cluster started, and those whose records are lost.

    Returns:
        How many there were.
    """
    pids = marked(layout.root, proc)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_for("the end of programs without records", 10, lambda: not marked(layout.root, proc))
    return len(pids)


def forget_sockets(layout: Layout, node: str) -> None:
    """Remove the sockets of a node's helpers, which lie outside of the cluster's directory."""
    for address in layout.node(node).tasks.glob("*/address"):
        with contextlib.suppress(OSError):
            path = Path(address.read_text().strip().removeprefix("unix://"))
            if path.is_relative_to("/run/containerd/s"):
                path.unlink()


def purge(layout: Layout, say: Say) -> None:
    """Take the cluster down and remove everything that it kept: images and logs."""
    down(layout, say)
    for directory in (layout.stores, layout.logs):
        shutil.rmtree(directory, ignore_errors=True)
    say(f"removed what was kept below {layout.root}, but for {layout.images}")
