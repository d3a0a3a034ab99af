"""From nothing to a digit on Kubernetes, and back again: each step with its time.

    python examples/kubernetes/walkthrough.py [--keep] [--tag TAG --registry REGISTRY]

Without KUBECONFIG it starts a cluster of its own on this machine (as root; see
docs/development-cluster.md), builds the images and gives them to its nodes, if the disk has room
for all that; with KUBECONFIG it uses the images that the registry has. It installs the chart,
applies examples/digits.yaml, waits until the pipeline is ready, draws digits through a
port-forward, and draws the same ones with the embedded runtime. Exits with 1 unless

- every picture is bit-identical to the embedded one's;
- the pods of the stages are on more than one node, and tensors went over UCX from pod to pod;
- no stage pod has a volume of its node, and the code of each is that of an installed wheel.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import disk
from rich.console import Console
from rich.table import Table

from disagfusion.client import Client, GenerationResult
from disagfusion.local import LocalRuntime
from disagfusion.version import __version__

ROOT = Path(__file__).resolve().parents[2]
KUBECONFIG = ROOT / ".cluster" / "kubeconfig"
NAMESPACE, PIPELINE = "digits", "digits"
OPERATOR_NAMESPACE, RELEASE = "disagfusion", "disagfusion"
PROMPTS = ("a handwritten seven in red", "a handwritten three in blue", "a zero in green")
OPTIONS: dict[str, Any] = {"num_inference_steps": 8, "height": 64, "width": 64}
READY_SECONDS = 300
# Where the code is, and where the wheel has it that was installed: an editable one lists no code.
ORIGIN = """
import importlib.metadata, json, disagfusion
found = importlib.metadata.distribution("disagfusion")
listed = [one for one in found.files or () if str(one) == "disagfusion/__init__.py"]
origin = json.loads(found.read_text("direct_url.json") or "{}")
print(json.dumps({
    "file": disagfusion.__file__,
    "of_wheel": str(found.locate_file(listed[0])) if listed else None,
    "editable": origin.get("dir_info", {}).get("editable", False),
}))
"""

console = Console(width=None if sys.stdout.isatty() else 120)


@dataclass
class Walk:
    """The steps so far.

    Attributes:
        steps: What was done, and in how many seconds.
        failures: What did not hold.
    """

    steps: list[tuple[str, float]] = field(default_factory=list)
    failures: int = 0

    @contextlib.contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Time a step."""
        console.print(f"… {what}")
        begin = time.monotonic()
        yield
        self.steps.append((what, time.monotonic() - begin))

    def check(self, holds: bool, text: str) -> None:
        """Print whether something holds."""
        self.failures += not holds
        console.print(f"{'yes' if holds else 'NO '}  {text}", highlight=False)


def run(*command: str, **options: Any) -> str:
    """Run a command; its standard output."""
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, check=True, **options)
    return done.stdout


def objects(kind: str, labels: str) -> list[dict[str, Any]]:
    """Return objects of the pipeline's namespace."""
    answer = run("kubectl", "-n", NAMESPACE, "get", kind, "-l", labels, "-o", "json")
    found: list[dict[str, Any]] = json.loads(answer)["items"]
    return found


def own_cluster(walk: Walk) -> None:
    """Start a cluster on this machine and give it the images."""
    if complaint := disk.complaint(disk.parts(ROOT, os.environ)):
        sys.exit(complaint)
    with walk.step("start a cluster: two real nodes"):
        run("make", "cluster-up", cwd=ROOT)
    with walk.step("build the images"):
        run("make", "images", cwd=ROOT)
    archives = sorted(map(str, (ROOT / ".cluster" / "images").glob("disagfusion-*.tar")))
    with walk.step("import them into the nodes"):
        run(sys.executable, "-m", "tools.cluster", "load", *archives, cwd=ROOT)
    os.environ["KUBECONFIG"] = str(KUBECONFIG)
    os.environ["PATH"] = f"{ROOT / '.tools' / 'bin'}:{os.environ['PATH']}"


def need(*programs: str) -> None:
    """End where a program is missing."""
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        sys.exit(f"{' and '.join(missing)} must be on the PATH")


def install(walk: Walk, registry: str, tag: str) -> None:
    """Install the chart and apply the pipeline."""
    with walk.step("helm install"):
        run(
            *("helm", "upgrade", "--install", RELEASE, str(ROOT / "charts" / "disagfusion")),
            *("--namespace", OPERATOR_NAMESPACE, "--create-namespace", "--wait"),
            *("--set", f"images.registry={registry}", "--set", f"images.tag={tag}"),
        )
    manifest = ROOT / "examples" / "digits.yaml"
    with walk.step("kubectl apply, until the pipeline is ready"):
        if subprocess.run(
            ["kubectl", "get", "namespace", NAMESPACE], capture_output=True
        ).returncode:
            run("kubectl", "create", "namespace", NAMESPACE)
        run("kubectl", "-n", NAMESPACE, "apply", "-f", str(manifest))
        run(
            *("kubectl", "-n", NAMESPACE, "wait", f"dfp/{PIPELINE}"),
            *("--for=condition=Ready", f"--timeout={READY_SECONDS}s"),
        )


@contextlib.contextmanager
def forwarded() -> Iterator[str]:
    """Forward a free local port to the gateway."""
    command = ["kubectl", "-n", NAMESPACE, "port-forward", f"service/{PIPELINE}", ":7420"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.search(r"127\.0\.0\.1:(\d+)", line)
        if match is None:
            raise SystemExit(f"kubectl port-forward does not forward: {line!r}")
        yield f"127.0.0.1:{match[1]}"
    finally:
        process.terminate()
        process.wait()


def draw(client: Client) -> list[GenerationResult]:
    """Draw every prompt."""
    handles = [client.submit(prompt, seed=seed, **OPTIONS) for seed, prompt in enumerate(PROMPTS)]
    return [handle.result() for handle in handles]


def pixels(results: Sequence[GenerationResult]) -> list[bytes]:
    """Return the pictures' pixels."""
    return [one.images[0].tobytes() for one in results]


def look_at_pods(walk: Walk, results: Sequence[GenerationResult]) -> None:
    """Say where stages ran and how tensors went, and check it."""
    pods = {pod["metadata"]["name"]: pod for pod in objects("pods", "disagfusion.dev/stage")}
    table = Table(title="stages of the last picture", title_justify="left")
    for column in ("stage", "pod", "node", "address", "compute", "bytes", "over"):
        table.add_column(column)
    records = results[-1].job.stages
    for record in records:
        pod = pods[record.worker]
        table.add_row(
            *(record.stage, record.worker, pod["spec"]["nodeName"], pod["status"]["podIP"]),
            f"{1e3 * record.compute_seconds:.0f} ms",
            f"{record.bytes_out:,}",
            record.transport or "–",
        )
    console.print(table)
    nodes = {pods[record.worker]["spec"]["nodeName"] for record in records}
    walk.check(len(nodes) > 1, f"the stages are on {len(nodes)} nodes: {', '.join(sorted(nodes))}")
    # The decoder hands nothing on.
    over = {record.stage: record.transport for record in records if record.stage != "decoder"}
    walk.check(
        set(over) == {"encoder", "dit"}
        and all((one or "").startswith("ucx/") for one in over.values()),
        "tensors went over "
        + ", ".join(f"{how or 'nothing'} ({stage})" for stage, how in over.items()),
    )
    mounted = [
        name
        for name, pod in pods.items()
        for volume in pod["spec"].get("volumes", ())
        if "hostPath" in volume
    ]
    walk.check(not mounted, "no stage pod has a volume of its node")
    for record in records:
        told = run("kubectl", "-n", NAMESPACE, "exec", record.worker, "--", "python", "-c", ORIGIN)
        code: dict[str, Any] = json.loads(told)
        walk.check(
            code["file"] == code["of_wheel"] and not code["editable"],
            f"the code of {record.worker} is an installed wheel's: {code['file']}",
        )


def remove(walk: Walk) -> None:
    """Take away what was made."""
    with walk.step("delete the pipeline"):
        run("kubectl", "delete", "namespace", NAMESPACE, "--timeout=300s")
    with walk.step("helm uninstall"):
        run("helm", "uninstall", RELEASE, "--namespace", OPERATOR_NAMESPACE, "--wait")


def main() -> None:
    """Walk."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--registry", default="localhost", help="that has the images")
    parser.add_argument("--tag", default=__version__, help="of the images")
    parser.add_argument("--keep", action="store_true", help="leave everything there in the end")
    arguments = parser.parse_args()
    walk = Walk()
    if "KUBECONFIG" not in os.environ:
        own_cluster(walk)
    need("kubectl", "helm")
    install(walk, arguments.registry, arguments.tag)
    with walk.step("draw through a port-forward"), forwarded() as address:
        with Client(address, timeout=120.0) as client:
            results = draw(client)
    with walk.step("draw the same with the embedded runtime"):
        with LocalRuntime(threads=1) as runtime, Client(runtime.address) as client:
            expected = draw(client)
    same = sum(a == b for a, b in zip(pixels(results), pixels(expected), strict=True))
    walk.check(
        same == len(PROMPTS),
        f"{same} of {len(PROMPTS)} pictures are bit-identical to embedded ones",
    )
    look_at_pods(walk, results)
    if not arguments.keep:
        remove(walk)
    for what, seconds in walk.steps:
        console.print(f"{seconds:7.1f} s  {what}", highlight=False)
    sys.exit(1 if walk.failures else 0)


if __name__ == "__main__":
    main()
