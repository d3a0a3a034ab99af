"""Do pools go from one pipeline to another when the load does?

    make cluster-up cluster-tools && make images IMAGES="gateway emulated operator"
    python benchmarks/kubernetes_pools.py [--phase-seconds 300] [--output DIRECTORY]

Flux, Qwen-Image and Wan, emulated, share three pools of the cluster of `make cluster-up`: real
pods of the slim image on two real nodes, a real Prometheus. In each of three phases another one
has most of the load. This is done twice: `together`, where the operator divides the pools among the
three pipelines as they need them, and `equal`, where each may use a third of every pool
(`pools[].capacity`). From the API server's watch comes how many accelerators of each pool were
held at each moment, by pods that were ending as well. Exits with 1 where a job is lost or a pool
was exceeded.

Seconds on `large` are those of an H100: Qwen-Image's and Wan2.1 T2V's are published or derived,
Flux' derived (see the files of examples/profiles). `medium` is half as fast and `small` a quarter,
which is ours, as are the numbers of accelerators.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.kuberneteskit.chart import install
from benchmarks.kuberneteskit.pods import PodWatch
from benchmarks.kuberneteskit.ready import wait_ready
from benchmarks.kuberneteskit.scraping import prometheus
from benchmarks.reporting import environment
from benchmarks.scheduling_real import percentile
from disagfusion.client import Client, Job
from disagfusion.scheduling.document import parse
from disagfusion.scheduling.profile import Profile
from tools.cluster import objects
from tools.cluster.kubectl import Kubectl
from tools.cluster.layout import Layout

PROFILES = Path(__file__).resolve().parents[1] / "examples" / "profiles"
NAMESPACE = "pools"
DIVISIONS = ("together", "equal")


@dataclass(frozen=True)
class Pool:
    """Accelerators of one kind.

    Attributes:
        count: How many.
        speed: Over `large`.
    """

    count: int
    speed: float

    @staticmethod
    def resource(name: str) -> str:
        """Return the extended resource that stands for it."""
        return f"disagfusion.dev/emulated-{name}"


POOLS = {"small": Pool(6, 0.25), "medium": Pool(6, 0.5), "large": Pool(3, 1.0)}


@dataclass(frozen=True)
class Model:
    """One of the pipelines.

    Attributes:
        profile: File that says what its stages take, and the pool in it that is `large` here.
        job: What is submitted.
        much: Jobs a second of the profile in the phase that is its own.
        little: In the others.
    """

    profile: tuple[str, str]
    job: Mapping[str, Any]
    much: float
    little: float


MODELS = {
    "flux": Model(
        ("w5-flux.yaml", "gpu"),
        {"height": 1024, "width": 1024, "num_inference_steps": 28},
        0.5,
        0.05,
    ),
    "qwen-image": Model(
        ("qwen-image-4090-h100.yaml", "h100"),
        {"height": 928, "width": 1664, "num_inference_steps": 4},
        1.4,
        0.14,
    ),
    "wan": Model(
        ("wan2.1-t2v-4090-h100.yaml", "h100"),
        {"height": 480, "width": 832, "num_frames": 81, "num_inference_steps": 4},
        0.25,
        0.025,
    ),
}


@dataclass(frozen=True)
class Outcome:
    """What became of the jobs; seconds of the profiles.

    Attributes:
        division: `together` or `equal`.
        submitted: Jobs.
        succeeded: Of them.
        p50: Median latency by pipeline and phase.
        p95: 95th percentile of it.
        last: When the last job ended.
        most_held: Accelerators of each pool that were held at a time at most.
        replicas: Ready replicas at the end of each phase, by pipeline.
        pods: Pods that there have been.
    """

    division: str
    submitted: int
    succeeded: int
    p50: dict[str, list[float]]
    p95: dict[str, list[float]]
    last: float
    most_held: dict[str, int]
    replicas: list[dict[str, int]]
    pods: int


def profile_of(model: Model) -> Profile:
    """Return what a model's stages take on the three pools."""
    name, known = model.profile
    read = yaml.safe_load((PROFILES / name).read_text())
    stages = {}
    for stage, what in read["stages"].items():
        cost = what["pools"][known]
        stages[stage] = {"pools": {pool: slower(cost, one.speed) for pool, one in POOLS.items()}}
    pools = {pool: {"accelerators": one.count} for pool, one in POOLS.items()}
    written = {"name": read["name"], "source": __doc__, "pools": pools, "stages": stages}
    return parse(Profile, yaml.safe_dump(written), name=name)


def slower(cost: Mapping[str, Any], speed: float) -> dict[str, Any]:
    """Return what something costs at so much of the speed."""
    if "seconds" in cost:
        return {"seconds": cost["seconds"] / speed}
    return {"model": {part: value / speed for part, value in cost["model"].items()}}


def manifests(division: str, url: str, scale: float) -> list[dict[str, Any]]:
    """Return the profiles and the pipelines."""
    meta = {"namespace": NAMESPACE}
    found: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    ]
    for name, model in MODELS.items():
        pools: dict[str, dict[str, Any]] = {
            pool: {"accelerator": {"resource": Pool.resource(pool)}} for pool in POOLS
        }
        if division == "equal":
            for pool, one in POOLS.items():
                pools[pool]["capacity"] = one.count // len(MODELS)
        profile = yaml.safe_dump(profile_of(model).model_dump(exclude_defaults=True))
        found += [
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": name, **meta},
                "data": {"profile.yaml": profile},
            },
            {
                "apiVersion": "disagfusion.dev/v1alpha1",
                "kind": "DiffusionPipeline",
                "metadata": {"name": name, **meta},
                "spec": {
                    "model": {"emulated": {"timeScale": scale}},
                    "pools": pools,
                    "stages": {
                        stage: {"sharedMemory": "64Mi", "resources": {"requests": {"cpu": "10m"}}}
                        for stage in ("encoder", "dit", "decoder")
                    },
                    "transport": {"backend": "TCP"},
                    "scaling": {
                        "periodSeconds": 3,
                        "profile": {"configMap": {"name": name}},
                        "prometheus": {"url": url, "windowSeconds": 10},
                    },
                },
            },
        ]
    return found


def arrivals(model: Model, own: int, phase: float, seed: int) -> list[float]:
    """Draw when jobs come: Poisson, much in the pipeline's own phase and little in the others."""
    dice, times = random.Random(seed), []
    for number in range(len(MODELS)):
        rate = model.much if number == own else model.little
        at = number * phase + dice.expovariate(rate)
        while at < (number + 1) * phase:
            times.append(at)
            at += dice.expovariate(rate)
    return times


def submit(address: str, model: Model, times: list[float], begin: float, scale: float) -> list[Job]:
    """Submit a pipeline's jobs at their times, and wait for them."""
    with Client(address, timeout=1200.0) as client:
        handles = []
        for number, at in enumerate(times):
            time.sleep(max(0.0, begin + at * scale - time.time()))
            handles.append(client.submit("a lighthouse", seed=number, **model.job))
        return [handle.result().job for handle in handles]


def ready(kubectl: Kubectl) -> dict[str, int]:
    """Return how many replicas of each pipeline are ready."""
    found = kubectl.json("-n", NAMESPACE, "get", "dfp")["items"]
    return {
        one["metadata"]["name"]: sum(
            stage.get("ready", 0) for stage in one.get("status", {}).get("stages", {}).values()
        )
        for one in found
    }


def look(kubectl: Kubectl, begin: float, phase: float) -> list[dict[str, int]]:
    """Return the ready replicas of each pipeline at the end of each phase."""
    found = []
    for number in range(len(MODELS)):
        time.sleep(max(0.0, begin + (number + 1) * phase - time.time()))
        found.append(ready(kubectl))
    return found


def run(kubectl: Kubectl, division: str, phase: float, scale: float) -> Outcome:
    """Run the three phases."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        targets = {pool: directory / f"{pool}.json" for pool in POOLS}
        url = stack.enter_context(prometheus(directory, targets["small"]))
        watches = {
            pool: stack.enter_context(
                PodWatch(kubectl.kubeconfig, NAMESPACE, Pool.resource(pool), path)
            )
            for pool, path in targets.items()
        }
        kubectl.apply(manifests(division, url, scale))
        stack.callback(kubectl, "delete", "namespace", NAMESPACE, seconds=300)
        addresses = {name: wait_ready(kubectl, NAMESPACE, name) for name in MODELS}
        times = {
            name: arrivals(model, number, phase, seed=number)
            for number, (name, model) in enumerate(MODELS.items())
        }
        begin = time.time()
        with ThreadPoolExecutor() as threads:
            looked = threads.submit(look, kubectl, begin, phase * scale)
            submitted = {
                name: threads.submit(submit, addresses[name], model, times[name], begin, scale)
                for name, model in MODELS.items()
            }
            jobs = {name: one.result() for name, one in submitted.items()}
        return Outcome(
            division=division,
            submitted=sum(map(len, times.values())),
            succeeded=sum(len({job.id for job in found}) for found in jobs.values()),
            p50=latencies(jobs, times, phase, scale, 0.5),
            p95=latencies(jobs, times, phase, scale, 0.95),
            last=max(ended(job) for found in jobs.values() for job in found) / scale
            - begin / scale,
            most_held={pool: one.most_held for pool, one in watches.items()},
            replicas=looked.result(),
            pods=sum(one.seen for one in watches.values()),
        )


def ended(job: Job) -> float:
    """Return when a job ended, in Unix seconds."""
    assert job.ended_at is not None, "it has a result"
    return job.ended_at.timestamp()


def latencies(
    jobs: Mapping[str, list[Job]],
    times: Mapping[str, list[float]],
    phase: float,
    scale: float,
    share: float,
) -> dict[str, list[float]]:
    """Return a percentile of the latency by pipeline and by the phase in which jobs came."""
    found: dict[str, list[list[float]]] = {name: [[] for _ in MODELS] for name in MODELS}
    for name, done in jobs.items():
        for job, at in zip(done, times[name], strict=True):
            assert job.submitted_at is not None, "it has a result"
            seconds = ended(job) - job.submitted_at.timestamp()
            found[name][int(at // phase)].append(seconds / scale)
    return {
        name: [percentile(one, share) if one else 0.0 for one in phases]
        for name, phases in found.items()
    }


def show(outcomes: Sequence[Outcome], console: Console) -> None:
    """Print what was found."""
    table = Table(box=None, pad_edge=False)
    table.add_column("division")
    table.add_column("pipeline")
    for number in range(len(MODELS)):
        for what in ("P50 s", "P95 s", "replicas"):
            table.add_column(f"{number + 1}: {what}", justify="right")
    for one in outcomes:
        for name in MODELS:
            cells: list[str] = []
            for number, (p50, p95) in enumerate(zip(one.p50[name], one.p95[name], strict=True)):
                cells += [f"{p50:.1f}", f"{p95:.1f}", f"{one.replicas[number][name]}"]
            table.add_row(one.division if name == next(iter(MODELS)) else "", name, *cells)
    console.print(table)
    for one in outcomes:
        held = ", ".join(
            f"{one.most_held[pool]} of {what.count} {pool}" for pool, what in POOLS.items()
        )
        console.print(
            f"{one.division}: {one.succeeded} of {one.submitted} jobs succeeded, the last after"
            f" {one.last:.0f} s; held at most: {held}; {one.pods} pods",
            highlight=False,
        )


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--phase-seconds", type=float, default=300.0, help="of the profiles")
    parser.add_argument("--time-scale", type=float, default=0.5)
    parser.add_argument("--division", action="append", choices=DIVISIONS)
    parser.add_argument("--output", type=Path, help="write the outcomes here as JSON")
    arguments = parser.parse_args()
    kubectl = Kubectl(Layout().kubeconfig)
    for pool, what in POOLS.items():
        half = what.count // 2
        objects.set_resource(kubectl, "node1", Pool.resource(pool), what.count - half)
        objects.set_resource(kubectl, "node2", Pool.resource(pool), half)
    objects.add_volumes(Layout(), kubectl, len(DIVISIONS) * len(MODELS))
    install(kubectl)
    outcomes = [
        run(kubectl, division, arguments.phase_seconds, arguments.time_scale)
        for division in arguments.division or DIVISIONS
    ]
    show(outcomes, Console(width=120))
    if arguments.output is not None:
        answer = {"environment": environment(), "outcomes": [asdict(one) for one in outcomes]}
        arguments.output.write_text(json.dumps(answer, indent=1) + "\n")
    if any(
        one.succeeded < one.submitted
        or any(one.most_held[pool] > what.count for pool, what in POOLS.items())
        for one in outcomes
    ):
        sys.exit(1)


if __name__ == "__main__":
    main()
