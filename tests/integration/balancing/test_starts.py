"""Workers that the balancer starts and stops, within the budget."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from disagfusion.client import Client, JobState
from disagfusion.local import Balance, LocalRuntime

pytestmark = pytest.mark.timeout(180)

PROFILE = Path(__file__).with_name("profile.yaml")
LONG: dict[str, Any] = {"height": 100, "width": 100, "num_inference_steps": 10}


def held(runtime: LocalRuntime) -> list[str]:
    """Roles of the workers that have a process."""
    return [e.role for e in runtime.status() if e.pid and e.role in ("encoder", "dit", "decoder")]


def test_spare_workers_start_and_all_leave_when_there_is_no_work() -> None:
    settings = {"zero_after": 40.0, "period": 5.0}
    with (
        LocalRuntime(
            profile=PROFILE,
            device="emulated:quick",
            time_scale=0.02,
            transport="tcp",
            balance=Balance(budget=4, settings=settings),
        ) as runtime,
        Client(runtime.address, timeout=60.0) as client,
    ):
        most = 0

        def until(*counts: int) -> None:
            nonlocal most
            deadline = time.monotonic() + 60.0
            while True:
                roles = held(runtime)
                most = max(most, len(roles))
                if [roles.count(s) for s in ("encoder", "dit", "decoder")] == list(counts):
                    return
                assert time.monotonic() < deadline, roles
                time.sleep(0.01)

        handles = [client.submit("p", seed=seed, **LONG) for seed in range(20)]
        until(1, 2, 1)
        for handle in handles:
            assert handle.result().job.state is JobState.SUCCEEDED
        until(0, 0, 0)
        assert client.generate("p", **LONG).job.state is JobState.SUCCEEDED
        assert most == 4
