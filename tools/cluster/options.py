"""What a cluster can be asked for, by arguments or by the environment."""

from __future__ import annotations

import argparse
import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from tools.cluster.errors import ClusterError

PREFIX = "CLUSTER_"
# The directory of an etcd, a kube-apiserver and a kubectl that somebody else built.
ASSETS = "KUBEBUILDER_ASSETS"
_MOST_NODES = 20


@dataclass(frozen=True)
class Options:
    """What the cluster is to be like.

    Attributes:
        nodes: Real nodes; 0 for a control plane alone on loopback, which needs no root.
        kwok: Whether kwok runs, for fake nodes.
        network_policies: Whether network policies are enforced on the real nodes.
        max_requests_inflight: Requests that the API server works on at a time, and half as many
            changes; 0 leaves its defaults (400 and 200).
        api_qps: Requests per second that controller manager, scheduler and kubelets allow
            themselves, with bursts twice as large; 0 leaves their defaults.
        node_grace_seconds: Silence after which a node is not ready.
        feature_gates: `Gate=true,…` for every program of Kubernetes.
        apiserver_flags: More arguments for kube-apiserver.
        controller_manager_flags: More arguments for kube-controller-manager.
        scheduler_flags: More arguments for kube-scheduler.
        state_gigabytes: Most memory that the cluster's state may take.
    """

    nodes: int = 2
    kwok: bool = True
    network_policies: bool = True
    max_requests_inflight: int = 0
    api_qps: int = 0
    node_grace_seconds: int = 20
    feature_gates: str = ""
    apiserver_flags: str = ""
    controller_manager_flags: str = ""
    scheduler_flags: str = ""
    state_gigabytes: int = 8

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ClusterError: One is out of range.
        """
        if not 0 <= self.nodes <= _MOST_NODES:
            raise ClusterError(f"nodes must be from 0 to {_MOST_NODES}, not {self.nodes}")
        for name in ("max_requests_inflight", "api_qps"):
            if getattr(self, name) < 0:
                raise ClusterError(f"{name} must be 0 or more, not {getattr(self, name)}")
        for name in ("node_grace_seconds", "state_gigabytes"):
            if getattr(self, name) < 1:
                raise ClusterError(f"{name} must be 1 or more, not {getattr(self, name)}")

    @property
    def node_names(self) -> list[str]:
        """Names of the real nodes."""
        return [f"node{number}" for number in range(1, self.nodes + 1)]

    def flags(self, program: str) -> list[str]:
        """Return the arguments that were asked for on top of a program's own.

        Args:
            program: `apiserver`, `controller_manager` or `scheduler`.
        """
        found: list[str] = []
        if program == "apiserver" and self.max_requests_inflight:
            found += [
                f"--max-requests-inflight={self.max_requests_inflight}",
                f"--max-mutating-requests-inflight={max(1, self.max_requests_inflight // 2)}",
            ]
        if program in ("controller_manager", "scheduler") and self.api_qps:
            found += [f"--kube-api-qps={self.api_qps}", f"--kube-api-burst={2 * self.api_qps}"]
        if self.feature_gates:
            found.append(f"--feature-gates={self.feature_gates}")
        return found + shlex.split(str(getattr(self, f"{program}_flags")))

    def save(self, path: Path) -> None:
        """Write them for later commands."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> Options:
        """Read what `save` wrote.

        Raises:
            ClusterError: No cluster runs.
        """
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            raise ClusterError("no cluster runs here: start one with `make cluster-up`") from None


def _flag(name: str, text: str) -> bool:
    values = {
        "1": True,
        "true": True,
        "yes": True,
        "0": False,
        "false": False,
        "no": False,
        "": False,
    }
    try:
        return values[text.strip().lower()]
    except KeyError:
        raise ClusterError(f"{name} must be 0 or 1, not {text!r}") from None


def _number(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ClusterError(f"{name} must be a whole number, not {text!r}") from None


def from_environment(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """Return what `CLUSTER_*` variables set, by option.

    Raises:
        ClusterError: A variable has a value of another kind.
    """
    found: dict[str, Any] = {}
    for field in fields(Options):
        name = PREFIX + field.name.upper()
        if name in environment:
            convert = {"int": _number, "bool": _flag}.get(str(field.type))
            found[field.name] = convert(name, environment[name]) if convert else environment[name]
    return found


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add an argument for every option."""
    for field in fields(Options):
        name = "--" + field.name.replace("_", "-")
        if str(field.type) == "bool":
            parser.add_argument(
                name, action=argparse.BooleanOptionalAction, default=None, dest=field.name
            )
        else:
            kind = int if str(field.type) == "int" else str
            parser.add_argument(name, type=kind, default=None, dest=field.name)


def asked(
    arguments: argparse.Namespace, environment: Mapping[str, str] = os.environ
) -> dict[str, Any]:
    """Return what is asked for, by option: arguments before variables."""
    values = from_environment(environment)
    if environment.get(ASSETS):
        # They have no kubelet.
        values.setdefault("nodes", 0)
    for field in fields(Options):
        if (value := getattr(arguments, field.name, None)) is not None:
            values[field.name] = value
    return values


def differences(running: Options, wanted: Mapping[str, Any]) -> list[str]:
    """Return what is asked for and is not so, in words; what is not asked for may be anything."""
    return [
        f"{name} is {getattr(running, name)!r} and not {value!r}"
        for name, value in wanted.items()
        if getattr(running, name) != value
    ]
