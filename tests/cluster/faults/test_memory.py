"""A pod that takes more memory than it may."""

from __future__ import annotations

from typing import Any

import pytest

from tests.cluster.faults.load import Load, address_of, two
from tests.cluster.operator.pipelines import Pipelines, eventually
from tools.cluster.errors import ClusterError

_EAT = """
open("/proc/1/oom_score_adj", "w").write("1000")  # the first to go
eaten = [b"x" * (16 << 20) for _ in range(64)]
"""


def state(pipelines: Pipelines, pod: str) -> dict[str, Any]:
    found: dict[str, Any] = pipelines.json("get", "pod", pod)["status"]["containerStatuses"][0]
    return found


def test_a_pod_is_killed_for_want_of_memory(pipelines: Pipelines) -> None:
    # With all that it may have set aside for it, the kernel spares it until it is told otherwise.
    all_of_it = {"cpu": "500m", "memory": "512Mi"}
    bounded = {"resources": {"requests": all_of_it, "limits": all_of_it}}
    pipelines.write(two("memory", stages={"dit": bounded}))
    pipelines.settled("memory")
    pods = pipelines.pods("memory")
    victim = next(iter(pipelines.pods("memory", "dit")))
    with Load(address_of(pipelines, "memory")) as load:
        load.wait_busy()
        load.assert_busy()
        with pytest.raises(ClusterError, match="137"):  # it goes with the container
            pipelines("exec", victim, "--", "python", "-c", _EAT)
        ended = eventually(
            "the container was killed",
            30,
            lambda: state(pipelines, victim).get("lastState", {}).get("terminated"),
        )
        assert ended["reason"] == "OOMKilled"
        eventually("it works again", 60, lambda: state(pipelines, victim)["ready"])
        jobs = load.check()
    assert state(pipelines, victim)["restartCount"] == 1
    assert pipelines.pods("memory") == pods
    assert any(job.attempt > 1 for job in jobs), "nothing was lost with the container"
