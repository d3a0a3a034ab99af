"""The operator does its work with the rights that the chart gives it, and is refused nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.cluster.errors import ClusterError
from tools.cluster.kubectl import Kubectl
from tools.cluster.layout import ROOT

from .conftest import CHART, Helm, free_port

pytestmark = [pytest.mark.smoke, pytest.mark.timeout(180)]

Until = Callable[[str, float, Callable[[], bool]], None]


@dataclass(frozen=True)
class Running:
    """An operator in a process of its own."""

    process: subprocess.Popen[bytes]
    metrics: int
    log: Path

    def refusals(self) -> list[str]:
        """Return the calls that were forbidden, by Prometheus' words."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self.metrics}/metrics", timeout=10
        ) as answer:
            lines = answer.read().decode().splitlines()
        calls = [
            line for line in lines if re.match(r"disagfusion_operator_api_calls_total\{", line)
        ]
        assert calls, "the operator counts its calls"
        return [line for line in calls if '"403"' in line or '"401"' in line]


def _environment(manifest: str) -> dict[str, str]:
    """Return what the chart's Deployment gives the operator."""
    objects = [one for one in yaml.safe_load_all(manifest) if one]
    (deployment,) = (one for one in objects if one["kind"] == "Deployment")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return {one["name"]: one["value"] for one in container["env"] if "value" in one}


def _access(kubectl: Kubectl, namespace: str, account: str, directory: Path) -> Path:
    """Write the access file of an account."""
    token = kubectl("create", "token", account, "-n", namespace, "--duration=1h").strip()
    config: dict[str, Any] = yaml.safe_load(kubectl("config", "view", "--raw"))
    config["users"] = [{"name": one["name"], "user": {"token": token}} for one in config["users"]]
    path = directory / f"{account}.kubeconfig"
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


@contextmanager
def _operator(helm: Helm, kubectl: Kubectl, namespace: str, directory: Path) -> Iterator[Running]:
    health, metrics = free_port(), free_port()
    given = _environment(helm("get", "manifest", "disagfusion", "--namespace", namespace))
    given |= {
        "KUBECONFIG": str(_access(kubectl, namespace, "disagfusion", directory)),
        "DISAGFUSION_OPERATOR_NAMESPACE": namespace,
        "DISAGFUSION_OPERATOR_NAME": "one",
        "DISAGFUSION_OPERATOR_HEALTH_LISTEN": f"127.0.0.1:{health}",
        "DISAGFUSION_OPERATOR_METRICS_LISTEN": f"127.0.0.1:{metrics}",
        "DISAGFUSION_OPERATOR_LIST_SECONDS": "1",
    }
    log = directory / "operator.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "disagfusion_operator"],
            env=os.environ | given,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Running(process, metrics, log)
    finally:
        process.terminate()
        process.wait(30)


def _uninstall(helm: Helm, kubectl: Kubectl, system: str, team: str, directory: Path) -> str:
    """Do what the hook's Job does, with its account and its arguments, and return what it says."""
    hooks = [
        one for one in yaml.safe_load_all(helm("get", "hooks", "disagfusion", "-n", system)) if one
    ]
    kubectl.apply([one for one in hooks if one["kind"] not in ("Job", "Pod")])
    (job,) = (one for one in hooks if one["kind"] == "Job")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    access = _access(kubectl, system, pod["serviceAccountName"], directory)
    arguments = [*container["command"][1:], *container["args"]]
    if "--namespaces=" in arguments:
        # The pipelines of others in this cluster are none of this test's business.
        assert kubectl.json("get", "dfp", "-A")["items"][0]["metadata"]["namespace"] == team
        assert len(kubectl.json("get", "dfp", "-A")["items"]) == 1
    done = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | {"KUBECONFIG": str(access)},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("watched", [False, True], ids=["all-namespaces", "some-namespaces"])
def test_it_makes_mends_and_lets_go(
    helm: Helm,
    kubectl: Kubectl,
    space: Callable[[str], str],
    tmp_path: Path,
    until: Until,
    watched: bool,
) -> None:
    system, team = space("system"), space("team")
    values = {
        "watchNamespaces": [team] if watched else [],
        "uninstall": {"deletePipelines": True},
    }
    place = ("disagfusion", str(CHART), "--namespace", system)
    helm("install", *place, "--take-ownership", values=values)

    def has(kind: str, name: str) -> bool:
        return kubectl.succeeds("get", kind, name, "-n", team)

    def status() -> dict[str, Any]:
        found = kubectl.json("get", "dfp", "digits", "-n", team)
        return dict(found.get("status", {}))

    manifest = yaml.safe_load((ROOT / "examples" / "digits.yaml").read_text(encoding="utf-8"))
    manifest["spec"]["deletion"] = {"drainSeconds": 0}
    with _operator(helm, kubectl, system, tmp_path) as operator:
        try:
            kubectl("apply", "-n", team, "-f", "-", text=yaml.safe_dump(manifest))
            until("a Deployment", 60, lambda: has("deployment", "digits-dit-cpu"))
            until("a Service", 30, lambda: has("service", "digits-decoder"))
            chosen = ("-n", team, "-l", "disagfusion.dev/pipeline=digits", "-o", "name")
            until("network policies", 30, lambda: bool(kubectl("get", "networkpolicy", *chosen)))
            until("a status", 30, lambda: status().get("observedGeneration") == 1)

            kubectl("delete", "service", "digits-decoder", "-n", team)
            until("the deleted Service", 60, lambda: has("service", "digits-decoder"))

            # As the release's own hook does before the operator goes.
            said = _uninstall(helm, kubectl, system, team, tmp_path)
            assert f"deleting {team}/digits" in said
            assert not has("dfp", "digits")
            assert operator.refusals() == []
            assert "forbidden" not in operator.log.read_text(encoding="utf-8").lower()
        except (AssertionError, ClusterError) as error:
            raise AssertionError(f"{error}\n{operator.log.read_text()[-4000:]}") from error
        finally:
            helm("uninstall", "disagfusion", "--namespace", system, "--no-hooks")
