"""Does the operator follow a shift of the load, within the budget and without losing a job?

    make cluster-up cluster-tools && make images IMAGES="gateway emulated operator"
    python benchmarks/kubernetes_shift.py [--time-scale 0.1] [--flex] [--output DIRECTORY]

W2 on the cluster of `make cluster-up`: two real nodes, each of which has eight emulated
accelerators, so that it is the budget of eight that limits, real pods of the slim image, real
kubelets, and a real Prometheus that scrapes them through a proxy which fails one scrape in ten.
Jobs are submitted at their scaled times. From the API server's watch comes how many pods held an
accelerator at each moment, those that were ending included, and how many of each stage were ready.
With `--flex` pods change their stage in place, instead of pods that end and start. With `--output`:
outcome.json, and replicas.svg from Prometheus' data.

Exits with 1 unless

- every job succeeded, and the budget was never exceeded;
- each stage that grows in the simulation has grown;
- the last job ended before it does in the simulation of the ratio with which W2 begins;
- scrapes failed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.kuberneteskit.chart import install
from benchmarks.kuberneteskit.pods import PodWatch
from benchmarks.kuberneteskit.ready import wait_ready
from benchmarks.kuberneteskit.scraping import flaky_proxy, prometheus
from benchmarks.reporting import environment
from benchmarks.scheduling_real import generator, percentile, rebinding, simulate, submit
from disagfusion.client import Client
from disagfusion.scheduling.document import parse
from disagfusion.scheduling.profile import Profile
from disagfusion.simulation.arrivals import draw_arrivals
from disagfusion.simulation.policies.named import set_up
from disagfusion.simulation.run import Simulation
from disagfusion.simulation.workload import Workload
from tools.cluster import objects
from tools.cluster.kubectl import Kubectl
from tools.cluster.layout import Layout

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
NAMESPACE, PIPELINE = "shift", "emulated-w2"
RESOURCE = "disagfusion.dev/emulated"


@dataclass(frozen=True)
class Outcome:
    """What became of the workload; seconds of the profile.

    Attributes:
        submitted: Jobs.
        succeeded: Of them.
        last: When the last one ended.
        p50: Median latency.
        p95: 95th percentile of it.
        late: The most that a submission came after its time.
        most_held: Accelerators held at a time at most, by the API server's watch.
        budget: That were allowed.
        pods: That there have been.
        scrapes: By Prometheus.
        scrapes_failed: Of them, on purpose.
        grown: Stage → replicas that were ready at a time at most, over those at first.
        simulated_last: What `disagfusion simulate` says.
        simulated_p95: The same.
        simulated_grown: The same.
        static_last: The same where the ratio stays as it is at first.
    """

    submitted: int
    succeeded: int
    last: float
    p50: float
    p95: float
    late: float
    most_held: int
    budget: int
    pods: int
    scrapes: int
    scrapes_failed: int
    grown: dict[str, int]
    simulated_last: float
    simulated_p95: float
    simulated_grown: dict[str, int]
    static_last: float

    def failures(self) -> list[str]:
        """Return what does not hold of what it is to show."""
        stays = [one for one, more in self.simulated_grown.items() if more and not self.grown[one]]
        checks = {
            f"{self.submitted - self.succeeded} jobs were lost": self.succeeded < self.submitted,
            f"{self.most_held} of {self.budget} accelerators were held": self.most_held
            > self.budget,
            f"{', '.join(stays)} did not grow": bool(stays),
            f"the last job ended after {self.last:.0f} s, with a ratio that stays it would after"
            f" {self.static_last:.0f} s": self.last >= self.static_last,
            "no scrape failed": not self.scrapes_failed,
        }
        return [text for text, fails in checks.items() if fails]


def manifests(
    workload: Workload, profile: Profile, scale: float, url: str, *, flex: bool
) -> list[dict[str, Any]]:
    """Return the profile's ConfigMap and the pipeline."""
    assert workload.initial is not None, "W2 says where it begins"
    (pool,) = profile.pools
    described = rebinding(profile, workload).model_dump(exclude_defaults=True)
    meta = {"namespace": NAMESPACE}
    small = {"sharedMemory": "64Mi", "resources": {"requests": {"cpu": "10m"}}}
    accelerator = {"accelerator": {"resource": RESOURCE}}
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "profile", **meta},
            "data": {"profile.yaml": yaml.safe_dump(described)},
        },
        {
            "apiVersion": "disagfusion.dev/v1alpha1",
            "kind": "DiffusionPipeline",
            "metadata": {"name": PIPELINE, **meta},
            "spec": {
                "model": {"emulated": {"timeScale": scale}},
                "pools": {pool: {**accelerator, **({"flex": small} if flex else {})}},
                "stages": dict.fromkeys(profile.stages, small),
                "transport": {"backend": "TCP"},
                "scaling": {
                    "budget": workload.budget,
                    # Ten seconds of the workload's.
                    "periodSeconds": max(1, round(10 * scale)),
                    "profile": {"configMap": {"name": "profile"}},
                    "prometheus": {"url": url, "windowSeconds": 6},
                },
            },
        },
    ]


def run(kubectl: Kubectl, scale: float, output: Path | None, *, flex: bool) -> Outcome:
    """Run the workload."""
    workload = parse(Workload, (EXAMPLES / "workloads" / "w2.yaml").read_text(), name="w2.yaml")
    name = "wan2.2-i2v-480p.yaml"
    profile = parse(Profile, (EXAMPLES / "profiles" / name).read_text(), name=name)
    budget = workload.budget
    assert budget is not None, "W2 has a budget"
    assert workload.initial is not None, "W2 says where it begins"
    initial = {stage: sum(pools.values()) for stage, pools in workload.initial.items()}
    expected, static = simulate("hybrid", workload, profile), simulate("static", workload, profile)
    most = most_replicas(workload, profile)
    for node in ("node1", "node2"):
        objects.set_resource(kubectl, node, RESOURCE, budget)
    install(kubectl)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        targets = directory / "targets.json"
        proxy = stack.enter_context(flaky_proxy())
        url = stack.enter_context(prometheus(directory, targets, proxy))
        pods = stack.enter_context(PodWatch(kubectl.kubeconfig, NAMESPACE, RESOURCE, targets))
        kubectl.apply(manifests(workload, profile, scale, url, flex=flex))
        stack.callback(kubectl, "delete", "namespace", NAMESPACE, seconds=300)
        address = wait_ready(kubectl, NAMESPACE, PIPELINE, replicas=budget)
        client = stack.enter_context(Client(address, timeout=600.0))
        arrivals = list(draw_arrivals(workload, len(profile.stages), generator))
        begin = time.time()
        handles, late = submit(client, arrivals, workload, begin, scale)
        jobs = [handle.result().job for handle in handles]
        ended = time.time()
        spans = [(j.submitted_at, j.ended_at) for j in jobs if j.submitted_at and j.ended_at]
        latencies = [(end - start).total_seconds() / scale for start, end in spans]
        if output is not None:
            plot(url, begin, ended, scale, output / "replicas.svg")
        return Outcome(
            submitted=len(handles),
            succeeded=len({job.id for job in jobs}),
            last=(max(end.timestamp() for _, end in spans) - begin) / scale,
            p50=percentile(latencies, 0.5),
            p95=percentile(latencies, 0.95),
            late=late / scale,
            most_held=pods.most_held,
            budget=budget,
            pods=pods.seen,
            scrapes=proxy.count,
            scrapes_failed=proxy.failed,
            grown=grown(pods.most_ready, initial),
            simulated_last=expected.last,
            simulated_p95=expected.p95,
            simulated_grown=grown(most, initial),
            static_last=static.last,
        )


def grown(most: Mapping[str, int], initial: Mapping[str, int]) -> dict[str, int]:
    """Return by how much each stage has ever been larger than at first."""
    return {stage: max(0, most.get(stage, 0) - count) for stage, count in initial.items()}


def most_replicas(workload: Workload, profile: Profile) -> dict[str, int]:
    """Return how many replicas of each stage there are at most in the simulation."""

    def plan() -> dict[str, dict[str, int]]:
        assert workload.initial is not None, "W2 says where it begins"
        return workload.initial

    setup = set_up("hybrid", profile, workload, plan)
    result = Simulation(
        workload,
        setup.profile,
        setup.balancer,
        initial=setup.initial,
        learn=setup.learn,
        generator=generator,
    ).run()
    return {
        stage: max(sample.replicas[stage] for sample in result.samples) for stage in profile.stages
    }


def plot(url: str, begin: float, end: float, scale: float, path: Path) -> None:
    """Draw the ready replicas of each stage, as Prometheus has them."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    query = urllib.parse.urlencode(
        {
            "query": 'sum by (stage) (max by (stage, pool) (disagfusion_workers{state="ready"}))',
            "start": begin,
            "end": end,
            "step": 1,
        }
    )
    with urllib.request.urlopen(f"{url}/api/v1/query_range?{query}", timeout=10) as answer:
        found = json.load(answer)["data"]["result"]
    figure, axes = plt.subplots(figsize=(9, 3.5))
    for series in sorted(found, key=lambda one: one["metric"]["stage"]):
        times = [(float(at) - begin) / scale for at, _ in series["values"]]
        counts = [float(value) for _, value in series["values"]]
        axes.step(times, counts, where="post", label=series["metric"]["stage"])
    axes.set_xlabel("seconds of the profile")
    axes.set_ylabel("ready replicas")
    axes.set_ylim(0)
    axes.legend(loc="upper right")
    figure.tight_layout()
    figure.savefig(path)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--time-scale", type=float, default=0.1)
    parser.add_argument("--flex", action="store_true", help="pods change their stage in place")
    parser.add_argument("--output", type=Path, help="write outcome.json and replicas.svg here")
    arguments = parser.parse_args()
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
    found = run(
        Kubectl(Layout().kubeconfig), arguments.time_scale, arguments.output, flex=arguments.flex
    )
    for name, value in asdict(found).items():
        print(f"{name:16} {value if isinstance(value, dict) else round(value)}")
    if arguments.output is not None:
        answer = {"environment": environment(), "flex": arguments.flex, "outcome": asdict(found)}
        (arguments.output / "outcome.json").write_text(json.dumps(answer, indent=1) + "\n")
    if failures := found.failures():
        sys.exit("; ".join(failures))


if __name__ == "__main__":
    main()
