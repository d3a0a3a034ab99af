"""The operator's pod: its memory, and its calls of the API server."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from benchmarks.kuberneteskit.chart import SYSTEM
from tools.cluster.kubectl import Kubectl

_MIB = 2**20


@dataclass(frozen=True)
class Rest:
    """What the operator does while nothing happens.

    Attributes:
        calls_per_pipeline_minute: Calls of the API server, watches not included.
        calls: The same by verb and resource, in a minute.
        resident_mib: Its memory.
        peak_mib: The most that it had since it began.
        balanced: Pipelines that it balances by what Prometheus says of them.
    """

    calls_per_pipeline_minute: float
    calls: dict[str, float]
    resident_mib: float
    peak_mib: float
    balanced: int = 0


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


def rest(kubectl: Kubectl, pipelines: int, seconds: float) -> Rest:
    """Measure while nothing happens."""
    operator = Operator(kubectl)
    time.sleep(seconds / 2)  # What came before comes to its end.
    before, since = operator.calls(), time.monotonic()
    time.sleep(seconds)
    minutes = (time.monotonic() - since) / 60.0
    calls = {key: (n - before.get(key, 0.0)) / minutes for key, n in operator.calls().items()}
    return Rest(
        calls_per_pipeline_minute=sum(calls.values()) / pipelines,
        calls={key: round(n, 2) for key, n in sorted(calls.items()) if n},
        resident_mib=operator.resident(),
        peak_mib=operator.peak(),
    )
