"""A Kubernetes cluster on one machine. See docs/development-cluster.md.

Usage: python -m tools.cluster COMMAND …
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from tools.cluster import base, faults, images, lifecycle, objects, options
from tools.cluster.errors import ClusterError
from tools.cluster.kubectl import Kubectl
from tools.cluster.layout import Layout
from tools.cluster.options import Options

Command = Callable[[Layout, argparse.Namespace], None]


def _say(line: str) -> None:
    print(line, flush=True)


def external(layout: Layout) -> str | None:
    """Return the access file of a cluster that somebody else runs, if KUBECONFIG names one."""
    path = os.environ.get("KUBECONFIG", "")
    return path if path and Path(path).absolute() != layout.kubeconfig else None


def _kubectl(layout: Layout) -> Kubectl:
    if (other := external(layout)) is not None:
        return Kubectl(Path(other))
    Options.load(layout.options)
    return Kubectl(layout.kubeconfig)


def _up(layout: Layout, arguments: argparse.Namespace) -> None:
    if (other := external(layout)) is not None:
        Kubectl(Path(other))("get", "--raw", "/readyz")
        _say(f"nothing is started: KUBECONFIG names {other}, whose API server is ready")
        return
    lifecycle.up(layout, options.asked(arguments), _say)


def _down(layout: Layout, arguments: argparse.Namespace) -> None:
    (lifecycle.purge if arguments.purge else lifecycle.down)(layout, _say)


def _status(layout: Layout, arguments: argparse.Namespace) -> None:
    chosen = Options.load(layout.options)
    processes = lifecycle.processes_of(layout)
    cut = faults.partitioned(layout)
    for name in processes.names():
        record = processes.record(name)
        state = "runs" if processes.alive(name) else "ended"
        _say(f"{name:28} {state:6} pid {record.pid if record else '?'}")
    for name in chosen.node_names:
        _say(f"{name:28} {'cut off' if name in cut else 'connected'}")
    _say(f"KUBECONFIG={layout.kubeconfig}")


def _env(layout: Layout, arguments: argparse.Namespace) -> None:
    kubectl = _kubectl(layout)
    _say(f"export KUBECONFIG={kubectl.kubeconfig}")
    _say(f"export PATH={kubectl.program.parent}:$PATH")


def _load(layout: Layout, arguments: argparse.Namespace) -> None:
    names = Options.load(layout.options).node_names
    for done in images.load(layout, names, arguments.archives):
        _say(f"{done.node}: {done.image} {'imported' if done.fresh else 'was there'}")


def _base(layout: Layout, arguments: argparse.Namespace) -> None:
    _say(str(base.build(layout, _say)))


def _partition(layout: Layout, arguments: argparse.Namespace) -> None:
    faults.partition(layout, arguments.node)


def _heal(layout: Layout, arguments: argparse.Namespace) -> None:
    faults.heal(layout, arguments.node)


def _stop_apiserver(layout: Layout, arguments: argparse.Namespace) -> None:
    faults.stop_apiserver(layout, freeze=arguments.freeze)


def _start_apiserver(layout: Layout, arguments: argparse.Namespace) -> None:
    faults.start_apiserver(layout)


def _restart(layout: Layout, arguments: argparse.Namespace) -> None:
    faults.restart(layout, arguments.program)


def _label(layout: Layout, arguments: argparse.Namespace) -> None:
    objects.set_labels(_kubectl(layout), arguments.node, arguments.labels)


def _resource(layout: Layout, arguments: argparse.Namespace) -> None:
    objects.set_resource(_kubectl(layout), arguments.node, arguments.resource, arguments.amount)


def _add_fake_nodes(layout: Layout, arguments: argparse.Namespace) -> None:
    names = objects.add_fake_nodes(
        _kubectl(layout),
        arguments.pool,
        arguments.count,
        arguments.gpus,
        cpu=arguments.cpu,
        memory=arguments.memory,
        labels=arguments.label,
    )
    _say(f"{len(names)} fake nodes with {arguments.gpus} accelerators each are ready")


def _remove_fake_nodes(layout: Layout, arguments: argparse.Namespace) -> None:
    _say(objects.remove_fake_nodes(_kubectl(layout), arguments.pool).strip())


def _add_volumes(layout: Layout, arguments: argparse.Namespace) -> None:
    names = objects.add_volumes(layout, _kubectl(layout), arguments.count, arguments.size)
    _say(f"added {', '.join(names)}")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    top = argparse.ArgumentParser(
        prog="python -m tools.cluster",
        description="A Kubernetes cluster on one machine: see docs/development-cluster.md",
    )
    commands = top.add_subparsers(metavar="COMMAND", required=True)

    def add(name: str, run: Command, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    options.add_arguments(add("up", _up, "start a cluster"))
    command = add("down", _down, "take the cluster down; images stay imported")
    command.add_argument("--purge", action="store_true", help="remove the nodes' images too")
    add("status", _status, "say what runs")
    add("env", _env, "print what a shell needs for kubectl")
    command = add("load", _load, "import archives of images into every real node")
    command.add_argument("archives", nargs="+", type=Path, metavar="IMAGE.tar")
    add("base", _base, "build a small base image with python3, and say where it is")
    for name, run, text in (
        ("partition", _partition, "cut a real node off from everything else"),
        ("heal", _heal, "join a node that was cut off again"),
    ):
        add(name, run, text).add_argument("node")
    command = add("stop-apiserver", _stop_apiserver, "kill the API server")
    command.add_argument("--freeze", action="store_true", help="let it hang instead")
    add("start-apiserver", _start_apiserver, "bring the API server back")
    add("restart", _restart, "start a program anew").add_argument("program")
    command = add("label", _label, "label a node")
    command.add_argument("node")
    command.add_argument("labels", nargs="+", metavar="KEY=VALUE")
    command = add("resource", _resource, "let a real node have accelerators and the like")
    command.add_argument("node")
    command.add_argument("resource", help="such as nvidia.com/gpu")
    command.add_argument("amount", type=int)
    command = add("add-fake-nodes", _add_fake_nodes, "add a pool of nodes that kwok plays")
    command.add_argument("pool")
    command.add_argument("count", type=int)
    command.add_argument("--gpus", type=int, default=8)
    command.add_argument("--cpu", type=int, default=64)
    command.add_argument("--memory", default="512Gi")
    command.add_argument("--label", action="append", default=[], metavar="KEY=VALUE")
    command = add("remove-fake-nodes", _remove_fake_nodes, "remove fake nodes")
    command.add_argument("pool", nargs="?", help="all pools where none is named")
    command = add("add-volumes", _add_volumes, "add persistent volumes")
    command.add_argument("count", type=int)
    command.add_argument("--size", default="10Gi")
    return top


def main() -> None:
    """Run from the command line."""
    # `… status | head` is no error.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    arguments = parser().parse_args()
    try:
        arguments.run(Layout(), arguments)
    except ClusterError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
