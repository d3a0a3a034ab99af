"""How does the operator do with many pipelines and many accelerators?

    export GOGC=400 CLUSTER_MAX_REQUESTS_INFLIGHT=2000 CLUSTER_API_QPS=500
    export CLUSTER_CONTROLLER_MANAGER_FLAGS='--concurrent-deployment-syncs=20 \
        --concurrent-replicaset-syncs=20'
    make cluster-up cluster-tools && make images IMAGES=operator
    python benchmarks/kubernetes_scale.py [--pipelines 100] [--accelerators 500] [--output FILE]
    python benchmarks/kubernetes_scale.py --pipelines 1000 --accelerators 5000 \
        --operator-memory 2Gi --patience 3600 --settle-seconds 3600 --memory-mib 2048

Installs the chart in the cluster of `make cluster-up`, adds fake nodes with fake accelerators in
three pools, applies so many pipelines at once, and measures: seconds from the last apply until all
have settled (`observedGeneration` is current, and as many replicas are ready as the budget allows,
in every stage as many as it should have), the operator's memory, and its calls of the API server a
minute for each pipeline while nothing happens: first without any Prometheus, then with a real one,
from which the operator balances all pipelines. API server, scheduler, controllers and the operator
are real; nodes and the pods of pipelines are played by kwok, so that no job runs, and what
Prometheus scrapes is a half-busy pipeline's figures for each.

Exits with 1 where not all settle in time, or a figure is above its limit; the outcome is written
even so.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kubernetes import client, config, watch
from urllib3.exceptions import HTTPError

from benchmarks.kuberneteskit.chart import install
from benchmarks.kuberneteskit.operator import Operator, Rest, rest
from benchmarks.kuberneteskit.playing import exporter
from benchmarks.kuberneteskit.scraping import prometheus
from benchmarks.reporting import environment
from tools.cluster import objects
from tools.cluster.controlplane import API_SERVER
from tools.cluster.kubectl import Kubectl
from tools.cluster.layout import Layout
from tools.cluster.lifecycle import processes_of
from tools.cluster.options import Options as ClusterOptions

NAMESPACE = "scale"
ALONE, BALANCED = "without Prometheus", "with Prometheus"
POOLS = {"small": 0.4, "medium": 0.4, "large": 0.2}
ACCELERATORS_OF_A_NODE = 8
BUDGET = 5
SECONDS = {"encoder": 1.0, "dit": 3.0, "decoder": 1.0}
_TOLERATION = {"key": "kwok.x-k8s.io/node", "operator": "Exists", "effect": "NoSchedule"}
_TOLD = 5.0
_STILL = 60.0
_SCRAPE_SECONDS = 10


@dataclass(frozen=True)
class Outcome:
    """What was measured.

    Attributes:
        pipelines: How many.
        accelerators: Fake ones.
        apply_seconds: From the first apply to the last.
        settled: Pipelines that have: with their whole budget.
        quiet: Whether all had at least as much as they ask for, so that nothing happened any more.
        settled_seconds: From the last apply until all had settled; None: they did not.
        waited_seconds: From the last apply until the look at how many have.
        resident_mib: The operator's memory after that.
        peak_mib: The most that it had.
        rest: Without Prometheus and with one; nothing where it was not quiet.
    """

    pipelines: int
    accelerators: int
    apply_seconds: float
    settled: int
    quiet: bool
    settled_seconds: float | None
    waited_seconds: float
    resident_mib: float
    peak_mib: float
    rest: dict[str, Rest]

    def failures(self, seconds: float, memory: float, calls: float) -> list[str]:
        """Return what is above its limit.

        Args:
            seconds: Until all have settled.
            memory: That the operator may have, in MiB.
            calls: A minute for each pipeline, at rest.
        """
        found = []
        if self.settled_seconds is None:
            few = ", though they have all that they ask for" if self.quiet else ""
            found.append(f"{self.pipelines - self.settled} pipelines have not settled{few}")
        elif self.settled_seconds > seconds:
            found.append(f"{self.settled_seconds:.1f} s to settle, more than {seconds:g}")
        for what, mib in {
            "": self.peak_mib,
            **{f" {name}": one.peak_mib for name, one in self.rest.items()},
        }.items():
            if mib > memory:
                found.append(f"the operator had {mib:.0f} MiB{what}, more than {memory:g}")
        if self.quiet and (number := self.rest[BALANCED].balanced) < self.pipelines:
            found.append(f"only {number} pipelines were balanced from Prometheus")
        for what, one in self.rest.items():
            if one.calls_per_pipeline_minute > calls:
                found.append(
                    f"{one.calls_per_pipeline_minute:.2f} calls a minute for each pipeline {what},"
                    f" more than {calls:g}"
                )
        return found


def pipeline(number: int) -> dict[str, Any]:
    """Return a pipeline whose pods all run on fake nodes."""
    fake = {"spec": {"nodeSelector": {"type": "kwok"}, "tolerations": [_TOLERATION]}}
    profile_pools = {name: {"accelerators": 1000} for name in POOLS}
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
                "budget": BUDGET,
                "profile": {
                    "inline": {
                        "pools": profile_pools,
                        "stages": {
                            stage: {"pools": {name: {"seconds": cost} for name in POOLS}}
                            for stage, cost in SECONDS.items()
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


def quiet(item: dict[str, Any]) -> bool:
    """Whether a pipeline has all that it asks for, be that its budget or less."""
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


def settled(item: dict[str, Any]) -> bool:
    """Whether a pipeline is as it should be: it has its whole budget."""
    stages = item.get("status", {}).get("stages", {})
    return quiet(item) and sum(one["ready"] for one in stages.values()) == BUDGET


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
        self._quiet: dict[str, bool] = {}
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

    def quiet(self, count: int) -> bool:
        """Return whether so many have what they ask for, and nothing has changed for a minute."""
        with self._changed:
            still = time.monotonic() - self._at >= _STILL
            return still and sum(self._quiet.values()) >= count

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
        name = item["metadata"]["name"]
        with self._changed:
            before = self._settled.get(name), self._quiet.get(name)
            self._settled[name], self._quiet[name] = settled(item), quiet(item)
            if before != (self._settled[name], self._quiet[name]):
                self._at = time.monotonic()
            self._changed.notify_all()


def prepare(kubectl: Kubectl, pipelines: int, accelerators: int) -> None:
    """Add what the pipelines need: nodes, volumes, a namespace."""
    for pool, share in POOLS.items():
        count = round(accelerators * share / ACCELERATORS_OF_A_NODE + 0.49)
        objects.add_fake_nodes(kubectl, pool, count, ACCELERATORS_OF_A_NODE, cpu=256)
    objects.add_volumes(Layout(), kubectl, pipelines)
    kubectl("create", "namespace", NAMESPACE)
    url = "--from-literal=url=postgresql://nobody@database.invalid/jobs"
    kubectl("-n", NAMESPACE, "create", "secret", "generic", "database", url)


def measure(kubectl: Kubectl, pipelines: int, accelerators: int, patience: float) -> Outcome:
    """Apply the pipelines, and wait until all have settled, or until they never will.

    That is after `patience` seconds, or when all have what they ask for and nothing changes.
    """
    prepare(kubectl, pipelines, accelerators)
    operator = Operator(kubectl)
    following = Pipelines(kubectl.kubeconfig)
    begin = time.monotonic()
    for first in range(0, pipelines, 100):
        kubectl.apply([pipeline(n) for n in range(first, min(first + 100, pipelines))])
    applied = time.monotonic()
    done, at, waited = 0, applied, 0.0
    while done < pipelines and waited <= patience and not following.quiet(pipelines):
        done, at = following.settled(pipelines, _TOLD)
        waited = time.monotonic() - applied
        print(f"{waited:6.1f} s: {done} of {pipelines} have settled", flush=True)
    return Outcome(
        pipelines=pipelines,
        accelerators=accelerators,
        apply_seconds=applied - begin,
        settled=done,
        quiet=following.quiet(pipelines) or done == pipelines,
        settled_seconds=at - applied if done == pipelines else None,
        waited_seconds=waited,
        resident_mib=operator.resident(),
        peak_mib=operator.peak(),
        rest={},
    )


def balanced(kubectl: Kubectl, pipelines: int, seconds: float, limit: str, patience: float) -> Rest:
    """Measure the same with a Prometheus, from which the operator balances all pipelines."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        targets = directory / "targets.json"
        # Metrics call emulated pipelines so.
        names = [f"emulated-{pipeline(number)['metadata']['name']}" for number in range(pipelines)]
        replicas = {"encoder": 1, "dit": BUDGET - 2, "decoder": 1}
        address = stack.enter_context(exporter(names, replicas, "medium", SECONDS))
        url = stack.enter_context(
            prometheus(directory, targets, seconds=_SCRAPE_SECONDS, honor_labels=True)
        )
        targets.write_text(json.dumps([{"targets": [address]}]))
        install(kubectl, limit, f"pipelines.prometheusUrl={url}")
        deadline = time.monotonic() + patience
        while scaling(kubectl) < pipelines and time.monotonic() < deadline:
            time.sleep(_TOLD)
        found = rest(kubectl, pipelines, seconds)
        return replace(found, balanced=scaling(kubectl))


def scaling(kubectl: Kubectl) -> int:
    """Return how many pipelines are balanced by what Prometheus says of them."""
    wanted = {("MetricsAvailable", "True"), ("ScalingActive", "True")}
    return sum(
        wanted
        <= {(one["type"], one["status"]) for one in item.get("status", {}).get("conditions", ())}
        for item in kubectl.json("-n", NAMESPACE, "get", "dfp")["items"]
    )


def control_plane() -> dict[str, Any]:
    """Return what the control plane was started with."""
    layout = Layout()
    record = processes_of(layout).record(API_SERVER)
    variables = record.environment if record is not None else {}
    return {**asdict(ClusterOptions.load(layout.options)), "GOGC": variables.get("GOGC", "")}


def show(found: Outcome) -> None:
    """Print what was measured."""
    when = (
        f"settled {found.settled_seconds:.0f} s later"
        if found.settled_seconds is not None
        else f"{found.settled} had settled {found.waited_seconds:.0f} s later"
    )
    print(
        f"{found.pipelines} pipelines on {found.accelerators} accelerators: applied in"
        f" {found.apply_seconds:.0f} s, {when}; operator {found.resident_mib:.0f} MiB, at most"
        f" {found.peak_mib:.0f}"
    )
    for what, one in found.rest.items():
        print(
            f"at rest {what}: {one.calls_per_pipeline_minute:.2f} calls a minute for each pipeline,"
            f" {one.resident_mib:.0f} MiB, at most {one.peak_mib:.0f}"
        )
        for key, value in one.calls.items():
            print(f"  {value:8.2f} a minute  {key}")


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pipelines", type=int, default=100)
    parser.add_argument("--accelerators", type=int, default=500)
    parser.add_argument("--rest", type=float, default=180.0, help="seconds at rest, each time")
    parser.add_argument("--patience", type=float, default=1800.0, help="seconds to settle in")
    parser.add_argument(
        "--operator-memory", default="512Mi", help="the operator's limit, the chart's by default"
    )
    parser.add_argument("--settle-seconds", type=float, default=60.0, help="at most, for exit 0")
    parser.add_argument("--memory-mib", type=float, default=200.0, help="the same of the operator")
    parser.add_argument(
        "--calls", type=float, default=2.0, help="the same, a minute for each pipeline at rest"
    )
    parser.add_argument("--keep", action="store_true", help="leave everything there in the end")
    parser.add_argument("--output", type=Path, help="write the outcome here as JSON")
    arguments = parser.parse_args()
    kubectl = Kubectl(Layout().kubeconfig)
    where = {**environment(), "control_plane": control_plane()}
    limit = f"operator.resources.limits.memory={arguments.operator_memory}"
    install(kubectl, limit)
    try:
        found = measure(kubectl, arguments.pipelines, arguments.accelerators, arguments.patience)
        if found.quiet:
            found.rest[ALONE] = rest(kubectl, found.pipelines, arguments.rest)
            found.rest[BALANCED] = balanced(
                *(kubectl, found.pipelines, arguments.rest, limit, arguments.patience)
            )
        show(found)
        if arguments.output is not None:
            answer = {"environment": where, "outcome": asdict(found)}
            arguments.output.write_text(json.dumps(answer, indent=1) + "\n")
    finally:
        if not arguments.keep:
            kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", seconds=900)
            objects.remove_fake_nodes(kubectl)
    limits = arguments.settle_seconds, arguments.memory_mib, arguments.calls
    if failures := found.failures(*limits):
        sys.exit("; ".join(failures))


if __name__ == "__main__":
    main()
