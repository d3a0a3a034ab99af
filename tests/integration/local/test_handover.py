"""The whole system with hand-overs that are waited for."""

from __future__ import annotations

import urllib.request

import pytest

from disagfusion.client import Client
from disagfusion.local import LocalRuntime

pytestmark = pytest.mark.timeout(300)


def test_a_system_that_waits_for_every_hand_over(forked: None) -> None:
    with (
        LocalRuntime(settings={"handover": "sync"}) as runtime,
        Client(runtime.address, timeout=120.0) as client,
    ):
        handles = [
            client.submit(
                "a handwritten four in blue",
                seed=seed,
                num_inference_steps=4,
                height=64,
                width=64,
                parameters={"max_sequence_length": 32},
            )
            for seed in (1, 2, 1, 2)
        ]
        pictures = [handle.result().outputs[0].content for handle in handles]
        assert pictures[:2] == pictures[2:]
        assert pictures[0] != pictures[1]
        (dit,) = [entry for entry in runtime.status() if entry.name == "dit-0"]
        assert seconds(dit.metrics_address, "exposed") > 0
        assert seconds(dit.metrics_address, "hidden") == 0


def seconds(address: str, part: str) -> float:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    name = f"disagfusion_{part}_transfer_seconds_total{{"
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))
