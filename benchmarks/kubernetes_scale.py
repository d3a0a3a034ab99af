"""How does the operator do with many pipelines and many accelerators?

    GOGC=400 CLUSTER_MAX_REQUESTS_INFLIGHT=2000 CLUSTER_API_QPS=500 make cluster-up
    python benchmarks/kubernetes_scale.py [--pipelines 100] [--accelerators 500] [--output FILE]
    python benchmarks/kubernetes_scale.py --pipelines 1000 --accelerators 5000 \
        --operator-memory 2Gi --patience 3600

Installs the chart in the cluster of `make cluster-up`, adds fake nodes with fake accelerators in
three pools, applies so many pipelines at once, and measures: seconds from the last apply until all
have settled (`observedGeneration` is current, and every stage has as many ready replicas as it
should have), the operator's memory, and its calls of the API server a minute for each pipeline
while nothing happens. API server, scheduler, controllers and the operator are real; nodes and the
pods of pipelines are played by kwok, so that no job runs.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kubernetes import client, config, watch
from urllib3.exceptions import HTTPError

from benchmarks.kuberneteskit.chart import SYSTEM, install
from benchmarks.reporting import environment
from tools.cluster import objects
from tools.cluster.kubectl import Kubectl
from tools.cluster.layout import Layout

NAMESPACE = "scale"
POOLS = {"small": 0.4, "medium": 0.4, "large": 0.2}
ACCELERATORS_OF_A_NODE = 8
_TOLERATION = {"key": "kwok.x-k8s.io/node", "operator": "Exists", "effect": "NoSchedule"}
_TOLD = 5.0
_MIB = 2**20


@dataclass(frozen=True)
class Outcome:
    """What was measured.

    Attributes:
        pipelines: How many.
        accelerators: Fake ones.
        apply_seconds: From the first apply to the last.
        settled_seconds: From the last apply until all have settled.
        resident_mib: The operator's memory at rest.
        peak_mib: The most that it had.
        calls_per_pipeline_minute: Calls of the API server at rest, watches not included.
        calls: The same by verb and resource, in a minute.
    """

    pipelines: int
    accelerators: int
    apply_seconds: float
    settled_seconds: float
    resident_mib: float
    peak_mib: float
    calls_per_pipeline_minute: float
    calls: dict[str, float]


def pipeline(number: int) -> dict[str, Any]:
    """Return a pipeline whose pods all run on fake nodes."""
    fake = {"spec": {"nodeSelector": {"type": "kwok"}, "tolerations": [_TOLERATION]}}
    profile_pools = {name: {"accelerators": 1000} for name in POOLS}
    seconds = {"encoder": 1.0, "dit": 3.0, "decoder": 1.0}
    return {
        "apiVersion": "disagfusion.dev/v1alpha1",
        "kind": "DiffusionPipeline",
        "metadata": {"name": f"pipeline-{number}", "namespace": NAMESPACE},
        "spec": {
            "model": {"emulated": {}},
            "pools": {
                name: {
                    "nodeSelector": {"type": "kwok", "disagfusion.dev/pool": name},
                    "tolerations": [_TOLERATION],
                    "accelerator": {"resource": "nvidia.com/gpu"},
                }
                for name in POOLS
            },
            "stages": {"encoder": {"pools": ["small"]}, "decoder": {"pools": ["small", "medium"]}},
            "scaling": {
                "budget": 5,
                "profile": {
                    "inline": {
                        "pools": profile_pools,
                        "stages": {
                            stage: {"pools": {name: {"seconds": cost} for name in POOLS}}
                            for stage, cost in seconds.items()
                        },
                    }
                },
            },
            "gateway": {
                "podTemplate": fake,
                "store": {"postgresql": {"urlSecret": {"name": "database", "key": "url"}}},
            },
        },
    }


def settled(item: dict[str, Any]) -> bool:
    """Whether a pipeline is as it should be."""
    status = item.get("status", {})
    stages = status.get("stages", {})
    return (
        status.get("observedGeneration") == item["metadata"]["generation"]
        and set(stages) == {"encoder", "dit", "decoder"}
        and all(
            one.get("desired", 0) > 0 and one.get("desired") == one.get("ready")
            for one in stages.values()
        )
    )


class Pipelines:
    """Follows pipelines by the API server's watch.

    Looking again and again would take processor time that the control plane wants.

    Args:
        kubeconfig: Access to the cluster.
    """

    def __init__(self, kubeconfig: Path) -> None:
        access = config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]
        self._api = client.CustomObjectsApi(access)
        self._changed = threading.Condition()
        self._settled: dict[str, bool] = {}
        self._at = time.monotonic()
        threading.Thread(target=self._run, daemon=True).start()

    def settled(self, count: int, seconds: float) -> tuple[int, float]:
        """Wait until so many have settled.

        Returns:
            How many have, and when something changed last.
        """
        with self._changed:
            self._changed.wait_for(lambda: sum(self._settled.values()) >= count, seconds)
            return sum(self._settled.values()), self._at

    def _run(self) -> None:
        while True:
            # A watch may break; the next one begins with all that there are.
            with suppress(HTTPError, client.ApiException):
                # The client library has no types.
                following: Any = watch.Watch()  # type: ignore[no-untyped-call]
                group, version = pipeline(0)["apiVersion"].split("/")
                for event in following.stream(
                    self._api.list_namespaced_custom_object,
                    *(group, version, NAMESPACE, "diffusionpipelines"),
                ):
                    self._take(event["object"])

    def _take(self, item: dict[str, Any]) -> None:
        with self._changed:
            self._settled[item["metadata"]["name"]] = settled(item)
            self._at = time.monotonic()
            self._changed.notify_all()


class Operator:
    """The operator's pod.

    Args:
        kubectl: The cluster.
    """

    def __init__(self, kubectl: Kubectl) -> None:
        self._kubectl = kubectl

    def _name(self) -> str:
        pods = self._kubectl.json(
            "-n", SYSTEM, "get", "pods", "-l", "app.kubernetes.io/name=disagfusion"
        )
        return str(pods["items"][0]["metadata"]["name"])

    def metrics(self) -> str:
        """Return the metrics of the pod that leads."""
        return self._kubectl(
            "get", "--raw", f"/api/v1/namespaces/{SYSTEM}/pods/{self._name()}:9464/proxy/metrics"
        )

    def peak(self) -> float:
        """Return the most memory that it had so far in MiB, by the kernel's count."""
        status = self._kubectl("-n", SYSTEM, "exec", self._name(), "--", "cat", "/proc/1/status")
        match = re.search(r"^VmHWM:\s+(\d+) kB", status, re.M)
        assert match is not None, "Linux counts it"
        return float(match[1]) / 1024

    def resident(self) -> float:
        """Return its memory in MiB."""
        match = re.search(r"^process_resident_memory_bytes (\S+)", self.metrics(), re.M)
        assert match is not None, "the operator exports its memory"
        return float(match[1]) / _MIB

    def calls(self) -> dict[str, float]:
        """Return its calls so far by verb and resource."""
        found: dict[str, float] = {}
        for labels, value in re.findall(
            r"^disagfusion_operator_api_calls_total\{([^}]*)\} (\S+)", self.metrics(), re.M
        ):
            given = dict(re.findall(r'(\w+)="([^"]*)"', labels))
            key = f"{given['verb']} {given['resource']}"
            found[key] = found.get(key, 0.0) + float(value)
        return found


def measure(
    kubectl: Kubectl, pipelines: int, accelerators: int, *, rest: float, patience: float
) -> Outcome:
    """Apply the pipelines and measure.

    Raises:
        SystemExit: Not all have settled in `patience` seconds; says how many and the memory.
    """
    for pool, share in POOLS.items():
        count = round(accelerators * share / ACCELERATORS_OF_A_NODE + 0.49)
        objects.add_fake_nodes(kubectl, pool, count, ACCELERATORS_OF_A_NODE, cpu=256)
    objects.add_volumes(Layout(), kubectl, pipelines)
    kubectl("create", "namespace", NAMESPACE)
    url = "--from-literal=url=postgresql://nobody@database.invalid/jobs"
    kubectl("-n", NAMESPACE, "create", "secret", "generic", "database", url)
    operator = Operator(kubectl)
    following = Pipelines(kubectl.kubeconfig)
    begin = time.monotonic()
    for first in range(0, pipelines, 100):
        kubectl.apply([pipeline(n) for n in range(first, min(first + 100, pipelines))])
    applied = time.monotonic()
    done, at = 0, applied
    while done < pipelines:
        done, at = following.settled(pipelines, _TOLD)
        waited = time.monotonic() - applied
        print(f"{waited:6.1f} s: {done} of {pipelines} have settled", flush=True)
        if waited > patience and done < pipelines:
            sys.exit(
                f"{pipelines - done} of {pipelines} have not settled {waited:.0f} s after the last"
                f" apply; operator {operator.resident():.0f} MiB, at most {operator.peak():.0f}"
            )
    took = at - applied
    time.sleep(rest / 2)  # What their settling caused comes to its end.
    before, since = operator.calls(), time.monotonic()
    time.sleep(rest)
    minutes = (time.monotonic() - since) / 60.0
    calls = {key: (n - before.get(key, 0.0)) / minutes for key, n in operator.calls().items()}
    return Outcome(
        pipelines=pipelines,
        accelerators=accelerators,
        apply_seconds=applied - begin,
        settled_seconds=took,
        resident_mib=operator.resident(),
        peak_mib=operator.peak(),
        calls_per_pipeline_minute=sum(calls.values()) / pipelines,
        calls={key: round(n, 2) for key, n in sorted(calls.items()) if n},
    )


def show(found: Outcome) -> None:
    """Print what was measured."""
    print(
        f"{found.pipelines} pipelines on {found.accelerators} accelerators: applied in"
        f" {found.apply_seconds:.0f} s, settled {found.settled_seconds:.0f} s later; operator"
        f" {found.resident_mib:.0f} MiB, at most {found.peak_mib:.0f};"
        f" {found.calls_per_pipeline_minute:.2f} calls a minute for each pipeline at rest"
    )
    for key, value in found.calls.items():
        print(f"  {value:8.2f} a minute  {key}")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pipelines", type=int, default=100)
    parser.add_argument("--accelerators", type=int, default=500)
    parser.add_argument("--rest", type=float, default=180.0, help="seconds at rest")
    parser.add_argument("--patience", type=float, default=1800.0, help="seconds to settle in")
    parser.add_argument(
        "--operator-memory", default="512Mi", help="the operator's limit, the chart's by default"
    )
    parser.add_argument("--keep", action="store_true", help="leave everything there in the end")
    parser.add_argument("--output", type=Path, help="write the outcome here as JSON")
    arguments = parser.parse_args()
    kubectl = Kubectl(Layout().kubeconfig)
    limit = f"operator.resources.limits.memory={arguments.operator_memory}"
    install(kubectl, limit)
    try:
        found = measure(
            *(kubectl, arguments.pipelines, arguments.accelerators),
            rest=arguments.rest,
            patience=arguments.patience,
        )
        show(found)
        if arguments.output is not None:
            answer = {"environment": environment(), "outcome": asdict(found)}
            arguments.output.write_text(json.dumps(answer, indent=1) + "\n")
    finally:
        if not arguments.keep:
            kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", seconds=900)
            objects.remove_fake_nodes(kubectl)


if __name__ == "__main__":
    main()
