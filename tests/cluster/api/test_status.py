"""The real API server takes the status as the operator writes it, one after the other."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from disagfusion_operator.api.status import PlaceStatus, StageStatus, Status
from disagfusion_operator.reconcile.status import manifest_of

from tools.cluster.kubectl import Kubectl

from .cases import SMALLEST
from .conftest import Api

pytestmark = pytest.mark.smoke


def test_a_stage_that_is_nowhere_any_more(api: Api, kubectl: Kubectl) -> None:
    manifest = copy.deepcopy(SMALLEST)
    manifest["metadata"]["name"] = "status"
    there = api.create(manifest, dry=False)

    def write(pools: dict[str, PlaceStatus]) -> dict[str, Any]:
        status = Status(stages={"dit": StageStatus(pools=pools)})
        written = manifest_of(api.namespace, "status", there["metadata"]["uid"], status)
        answer = kubectl(
            *("apply", "--server-side", "--subresource=status", "--field-manager=operator"),
            *("-o", "json", "-f", "-"),
            text=json.dumps(written),
        )
        found: dict[str, Any] = json.loads(answer)["status"]["stages"]["dit"]
        return found

    try:
        assert write({"a": PlaceStatus(desired=1)})["pools"]["a"]["desired"] == 1
        assert not write({}).get("pools")
        assert write({"b": PlaceStatus(desired=2)})["pools"]["b"]["desired"] == 2
    finally:
        api.delete("status")
