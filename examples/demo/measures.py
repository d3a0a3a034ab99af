"""What the processes of a runtime count about the bytes they move."""

from __future__ import annotations

import urllib.request
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

from disagfusion.local import LocalRuntime

MEDIA = ("/disagfusion.v1.StageService/FetchMedia", "/disagfusion.v1.GenerationService/FetchOutput")
"""The methods that carry encoded pictures and videos."""


@dataclass(frozen=True)
class GrpcAccount:
    """Bytes by the way they went, over all processes.

    Attributes:
        control: gRPC messages of all methods but those that fetch encoded results.
        media: gRPC messages of the methods that fetch encoded results.
        data_plane: Tensors that stage services received from each other.
    """

    control: int
    media: int
    data_plane: int

    def __sub__(self, other: GrpcAccount) -> GrpcAccount:
        return GrpcAccount(
            self.control - other.control,
            self.media - other.media,
            self.data_plane - other.data_plane,
        )


def samples(address: str) -> list[tuple[str, dict[str, str], float]]:
    """Return all samples that a process exports: name, labels, value."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def grpc_account(runtime: LocalRuntime) -> GrpcAccount:
    """Add up what every process of a runtime has counted so far.

    Every gRPC server counts both directions, and every call of the system has one of these
    processes as its server, so nothing is missed.
    """
    control = media = data_plane = 0
    for process in runtime.status():
        if not process.metrics_address:
            continue
        for name, labels, value in samples(process.metrics_address):
            if name == "disagfusion_grpc_message_bytes_total":
                if labels["method"] in MEDIA:
                    media += int(value)
                else:
                    control += int(value)
            elif name == "disagfusion_transfer_bytes_total" and labels["direction"] == "received":
                data_plane += int(value)
    return GrpcAccount(control, media, data_plane)
