"""A control plane with fake nodes, and the operator as a process beside it: no root, no images."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.api.conftest import LOOPBACK, _start, free_port, install
from tools.cluster import objects, programs
from tools.cluster.errors import ClusterError
from tools.cluster.kubectl import Kubectl
from tools.cluster.layout import ROOT

SOURCES = (ROOT, ROOT / "operator")


@pytest.fixture(scope="session")
def control_plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubectl]:
    """An API server with the controllers, the scheduler and kwok."""
    directory = tmp_path_factory.mktemp("scaling")
    with ExitStack() as stack:
        access = _start(directory, stack)
        install(access)
        speaks = [
            f"--kubeconfig={access}",
            f"--authentication-kubeconfig={access}",
            f"--authorization-kubeconfig={access}",
            f"--bind-address={LOOPBACK}",
            "--leader-elect=false",
            f"--cert-dir={directory}",
        ]
        commands = {
            "kube-controller-manager": [
                *(*speaks, f"--secure-port={free_port()}"),
                f"--service-account-private-key-file={directory / 'service-accounts.key'}",
                f"--root-ca-file={directory / 'ca.crt'}",
            ],
            "kube-scheduler": [*speaks, f"--secure-port={free_port()}"],
            "kwok": [
                f"--kubeconfig={access}",
                "--manage-nodes-with-label-selector=type=kwok",
                f"--server-address={LOOPBACK}:{free_port()}",
                "--node-lease-duration-seconds=40",
            ],
        }
        for name, arguments in commands.items():
            with (directory / f"{name}.log").open("wb") as output:
                process = subprocess.Popen(
                    [str(programs.need(name)), *arguments],
                    stdout=output,
                    stderr=subprocess.STDOUT,
                )
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
        yield Kubectl(access)


@dataclass
class Operator:
    """The operator as a process, which can be killed and started again."""

    access: Path
    namespace: str
    log: Path
    settings: dict[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        settings = {
            "WATCH_NAMESPACES": self.namespace,
            "LEADER_ELECTION": "false",
            "NETWORK_POLICIES": "false",
            "HEALTH_LISTEN": f"{LOOPBACK}:{free_port()}",
            "METRICS_LISTEN": "",
            "RESYNC_SECONDS": "5",
            **self.settings,
        }
        environment = {f"DISAGFUSION_OPERATOR_{name}": value for name, value in settings.items()}
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "disagfusion_operator"],
                stdout=output,
                stderr=subprocess.STDOUT,
                env={
                    **os.environ,
                    **environment,
                    "KUBECONFIG": str(self.access),
                    "PYTHONPATH": os.pathsep.join(map(str, SOURCES)),
                },
            )

    def kill(self) -> None:
        """End it without giving it any time."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(30)
            self._process = None


@dataclass
class Space:
    """A namespace with an operator of its own, and a pool of eight fake accelerators."""

    name: str
    pool: str
    kubectl: Kubectl
    operator: Operator

    def __call__(self, *arguments: str) -> str:
        return self.kubectl("-n", self.name, *arguments)

    def json(self, *arguments: str) -> dict[str, Any]:
        return self.kubectl.json("-n", self.name, *arguments)

    def apply(self, *manifests: dict[str, Any]) -> None:
        self.kubectl(
            *("-n", self.name, "apply", "--server-side", "--field-manager=tests"),
            *("--force-conflicts", "-f", "-"),
            text="\n---\n".join(json.dumps(one) for one in manifests),
        )

    def pipeline(self, name: str, pool: dict[str, Any] | None = None, **scaling: Any) -> None:
        """Write a pipeline of emulated stages on the pool."""
        seconds = {"encoder": 1.0, "dit": 6.0, "decoder": 1.0}
        profile = {
            "pools": {"gpus": {"accelerators": 8}},
            "stages": {
                stage: {"pools": {"gpus": {"seconds": each}}} for stage, each in seconds.items()
            },
        }
        where = {
            "nodeSelector": {"disagfusion.dev/pool": self.pool},
            "tolerations": [{"key": "kwok.x-k8s.io/node", "operator": "Exists"}],
            "accelerator": {"resource": "nvidia.com/gpu"},
            **(pool or {}),
        }
        self.apply(
            {
                "apiVersion": "disagfusion.dev/v1alpha1",
                "kind": "DiffusionPipeline",
                "metadata": {"name": name},
                "spec": {
                    "model": {"emulated": {}},
                    "pools": {"gpus": where},
                    "deletion": {"drainSeconds": 0},
                    "scaling": {"profile": {"inline": profile}, **scaling},
                },
            }
        )

    def pods(self, name: str = "") -> list[dict[str, Any]]:
        """Return the pods of stages that have not come to their end, terminating ones as well."""
        chosen = "disagfusion.dev/stage"
        if name:
            chosen += f",disagfusion.dev/pipeline={name}"
        items = self.json("get", "pods", "-l", chosen)["items"]
        return [one for one in items if one["status"].get("phase") not in ("Succeeded", "Failed")]

    def ratio(self, name: str) -> str:
        """Return the replicas that Deployments ask for."""
        asked = []
        for stage in ("encoder", "dit", "decoder"):
            found = self.json("get", "deployment", f"{name}-{stage}-gpus")
            asked.append(str(found["spec"]["replicas"]))
        return ":".join(asked)

    def condition(self, name: str, kind: str) -> dict[str, Any]:
        conditions = self.json("get", "dfp", name).get("status", {}).get("conditions", [])
        return next((one for one in conditions if one["type"] == kind), {})

    def events(self, name: str) -> list[tuple[str, str]]:
        """Return reasons and messages of a pipeline's events."""
        chosen = f"involvedObject.kind=DiffusionPipeline,involvedObject.name={name}"
        items = self.json("get", "events", f"--field-selector={chosen}")["items"]
        return [(one["reason"], one["message"]) for one in items]

    def until(self, what: str, seconds: float, probe: Callable[[], Any]) -> Any:
        """Wait until a probe returns something true, and return that."""
        deadline = time.monotonic() + seconds
        seen: Any = None
        while time.monotonic() < deadline:
            try:
                if seen := probe():
                    return seen
            except ClusterError as error:
                seen = error
            time.sleep(0.3)
        log = self.operator.log.read_text()[-3000:]
        raise AssertionError(f"{what}: not within {seconds:g} s; last {seen!r}\n{log}")


@pytest.fixture
def space(control_plane: Kubectl, tmp_path: Path) -> Iterator[Space]:
    name = f"scaling-{uuid.uuid4().hex[:6]}"
    control_plane("create", "namespace", name)
    objects.add_fake_nodes(control_plane, name, 2, 4)
    operator = Operator(control_plane.kubeconfig, name, tmp_path / "operator.log")
    operator.start()
    found = Space(name, name, control_plane, operator)
    try:
        yield found
        found("delete", "dfp", "--all", "--timeout=60s")
    finally:
        operator.stop()
        control_plane("delete", "namespace", name, "--wait=false")
        objects.remove_fake_nodes(control_plane, name)
