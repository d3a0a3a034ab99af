"""From what happens at a front to its metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry
from stagerig import Rig

from disagfusion.stage.meter import StageMeter
from disagfusion.transport.api import RefusalReason

LABELS = {"pipeline": "p", "stage": "dit", "pool": "a10"}


def test_damaged_tensors_are_counted_apart_from_other_refusals() -> None:
    rig, registry = Rig(), CollectorRegistry()
    meter = StageMeter(registry, rig.machine, **LABELS, now=rig.now)

    def damaged() -> float | None:
        return registry.get_sample_value("disagfusion_checksum_failures_total", LABELS)

    assert damaged() == 0
    for outcome in ("delivered", "lost", *(reason.value for reason in RefusalReason)):
        meter.received("tcp", outcome, 100, 0.1)
    meter.sent("tcp", RefusalReason.CHECKSUM.value, 100, 0.1)
    assert damaged() == 1
    refused = {**LABELS, "transport": "tcp", "direction": "received", "outcome": "refused"}
    told = registry.get_sample_value("disagfusion_transfers_total", refused)
    assert told == len(RefusalReason)
