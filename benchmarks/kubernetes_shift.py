"""Does the operator follow a shift of the load, within the budget and without losing a job?

    make cluster-up && make images IMAGES="gateway emulated operator"
    python benchmarks/kubernetes_shift.py [--time-scale 0.1] [--output DIRECTORY]

W2 on the cluster of `make cluster-up`: eight emulated accelerators on two real nodes, real pods of
the slim image, real kubelets, and a real Prometheus that scrapes them through a proxy which fails
one scrape in ten. Jobs are submitted at their scaled times. From the API server's watch comes how
many pods held an accelerator at each moment, those that were ending included. Exits with 1 where a
job is lost or the budget was exceeded. With `--output`: outcome.json, and replicas.svg from
Prometheus' data.
"""

from __future__ import annotations

import argparse
import http.server
import json
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.kuberneteskit.chart import install
from benchmarks.kuberneteskit.pods import PodWatch
from benchmarks.reporting import environment
from benchmarks.scheduling_real import generator, percentile, rebinding, simulate, submit
from disagfusion.client import Client
from disagfusion.scheduling.document import parse
from disagfusion.scheduling.profile import Profile
from disagfusion.simulation.arrivals import draw_arrivals
from disagfusion.simulation.workload import Workload
from tools.cluster import objects
from tools.cluster.kubectl import Kubectl
from tools.cluster.layout import Layout

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
NAMESPACE, PIPELINE = "shift", "emulated-w2"
RESOURCE = "disagfusion.dev/emulated"
BRIDGE = "10.89.0.1"
"""Where pods of the development cluster reach the machine."""
_READY = 180.0
_START = 30.0


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
        simulated_last: What `disagfusion simulate` says.
        simulated_p95: The same.
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
    simulated_last: float
    simulated_p95: float


class FlakyProxy(http.server.ThreadingHTTPServer):
    """A proxy for scrapes that fails every tenth.

    Attributes:
        count: Scrapes so far.
        failed: Of them, on purpose.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Forward)
        self.count = self.failed = 0
        self._lock = threading.Lock()

    def fails(self) -> bool:
        """Whether this scrape is to fail."""
        with self._lock:
            self.count += 1
            self.failed += self.count % 10 == 0
            return self.count % 10 == 0


class _Forward(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, FlakyProxy)
        if server.fails():
            self.send_error(503, "this scrape fails on purpose")
            return
        try:
            with urllib.request.urlopen(self.path, timeout=1) as answer:
                body, kind = answer.read(), answer.headers["Content-Type"]
        except OSError as error:
            # Prometheus may have given up waiting.
            with suppress(OSError):
                self.send_error(502, str(error))
            return
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def prometheus(directory: Path, targets: Path, proxy: FlakyProxy) -> Iterator[str]:
    """Run Prometheus; return its URL for the machine and for pods."""
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
        "scrape_configs": [
            {
                "job_name": "pods",
                "proxy_url": f"http://127.0.0.1:{proxy.server_port}",
                "file_sd_configs": [{"files": [str(targets)], "refresh_interval": "1s"}],
            }
        ],
    }
    (directory / "prometheus.yml").write_text(yaml.safe_dump(config))
    with socket.socket() as free:
        free.bind((BRIDGE, 0))
        address = f"{BRIDGE}:{free.getsockname()[1]}"
    process = subprocess.Popen(
        [
            str(ROOT / ".tools" / "bin" / "prometheus"),
            f"--config.file={directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address={address}",
        ],
        stderr=(directory / "prometheus.log").open("w"),
    )
    try:
        _wait_listening(process, address)
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait()


def _wait_listening(process: subprocess.Popen[bytes], address: str) -> None:
    deadline = time.monotonic() + _START
    while True:
        try:
            urllib.request.urlopen(f"http://{address}/-/ready", timeout=1).close()
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"Prometheus does not answer on {address}: {error}")
            time.sleep(0.2)
        else:
            return


def manifests(workload: Workload, profile: Profile, scale: float, url: str) -> list[dict[str, Any]]:
    """Return the profile's ConfigMap and the pipeline."""
    assert workload.initial is not None, "W2 says where it begins"
    (pool,) = profile.pools
    described = rebinding(profile, workload).model_dump(exclude_defaults=True)
    meta = {"namespace": NAMESPACE}
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
                "pools": {pool: {"accelerator": {"resource": RESOURCE}}},
                "stages": {
                    stage: {"sharedMemory": "64Mi", "resources": {"requests": {"cpu": "10m"}}}
                    for stage in profile.stages
                },
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


def wait_ready(kubectl: Kubectl, replicas: int) -> None:
    """Wait until the pipeline has so many ready replicas, and a gateway."""
    deadline = time.monotonic() + _READY
    while True:
        status = kubectl.json("-n", NAMESPACE, "get", "dfp", PIPELINE).get("status", {})
        ready = sum(one.get("ready", 0) for one in status.get("stages", {}).values())
        if ready == replicas and status.get("state") == "Ready":
            return
        if time.monotonic() > deadline:
            sys.exit(f"{ready} of {replicas} replicas are ready: {json.dumps(status, indent=1)}")
        time.sleep(1.0)


def run(kubectl: Kubectl, scale: float, output: Path | None) -> Outcome:
    """Run the workload."""
    workload = parse(Workload, (EXAMPLES / "workloads" / "w2.yaml").read_text(), name="w2.yaml")
    name = "wan2.2-i2v-480p.yaml"
    profile = parse(Profile, (EXAMPLES / "profiles" / name).read_text(), name=name)
    budget = workload.budget
    assert budget is not None, "W2 has a budget"
    expected = simulate("hybrid", workload, profile)
    for node in ("node1", "node2"):
        objects.set_resource(kubectl, node, RESOURCE, budget)
    install(kubectl)
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        targets = directory / "targets.json"
        targets.write_text("[]")
        proxy = FlakyProxy()
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        url = stack.enter_context(prometheus(directory, targets, proxy))
        pods = stack.enter_context(PodWatch(kubectl.kubeconfig, NAMESPACE, RESOURCE, targets))
        kubectl.apply(manifests(workload, profile, scale, url))
        stack.callback(kubectl, "delete", "namespace", NAMESPACE, seconds=300)
        wait_ready(kubectl, budget)
        service = kubectl.json("-n", NAMESPACE, "get", "service", PIPELINE)
        address = f"{service['spec']['clusterIP']}:7420"
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
            simulated_last=expected.last,
            simulated_p95=expected.p95,
        )


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
    parser.add_argument("--output", type=Path, help="write outcome.json and replicas.svg here")
    arguments = parser.parse_args()
    if arguments.output is not None:
        arguments.output.mkdir(parents=True, exist_ok=True)
    found = run(Kubectl(Layout().kubeconfig), arguments.time_scale, arguments.output)
    for name, value in asdict(found).items():
        print(f"{name:16} {value:.0f}")
    if arguments.output is not None:
        answer = {"environment": environment(), "outcome": asdict(found)}
        (arguments.output / "outcome.json").write_text(json.dumps(answer, indent=1) + "\n")
    if found.succeeded < found.submitted or found.most_held > found.budget:
        sys.exit(1)


if __name__ == "__main__":
    main()
