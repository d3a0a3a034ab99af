"""How a balancer behaves, by the specification."""

from __future__ import annotations

from typing import Any

import pytest
from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.scaling.behavior import settings_of, time_scale

from disagfusion.errors import InvalidArgumentError
from disagfusion.scheduling.behavior import RatePolicy

from .members import pool


def spec(model: dict[str, Any] | None = None, **scaling: Any) -> Spec:
    return Spec.model_validate(
        {
            "model": model or {"builtin": "digits"},
            "pools": {"a": pool("a", provisioning="Autoscaled", provisioningTimeoutSeconds=1200)},
            "scaling": scaling,
        }
    )


def test_what_is_not_said_is_as_of_a_horizontal_pod_autoscaler() -> None:
    found = settings_of(spec())
    assert found.sizing == "budget"
    assert found.tolerance == 0.02
    assert found.zero_after is None
    assert found.behavior.up.stabilization_window_seconds == 0.0
    assert found.behavior.down.stabilization_window_seconds == 300.0
    assert RatePolicy("Pods", 4, 15.0) in found.behavior.up.policies
    # A pod may wait for its node, and then load.
    assert found.change_timeout >= 1200


def test_what_is_said_counts() -> None:
    found = settings_of(
        spec(
            objective="Cost",
            paused=True,
            tolerance="100m",
            headroom="0.5",
            periodSeconds=5,
            scaleToZero={"afterSeconds": 60},
            behavior={
                "scaleUp": {
                    "stabilizationWindowSeconds": 30,
                    "policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}],
                    "tolerance": "0.2",
                },
                "scaleDown": {"selectPolicy": "Disabled"},
            },
        )
    )
    assert (found.sizing, found.paused, found.period) == ("demand", True, 5)
    assert (found.tolerance, found.headroom, found.zero_after) == (0.1, 0.5, 60)
    assert found.behavior.up.stabilization_window_seconds == 30
    assert found.behavior.up.policies == (RatePolicy("Percent", 50, 60.0),)
    assert found.behavior.up.tolerance == 0.2
    assert found.behavior.down.select_policy == "Disabled"


def test_emulated_accelerators_may_be_fast() -> None:
    quick = spec({"emulated": {"timeScale": 0.1}}, scaleToZero={"afterSeconds": 60})
    assert time_scale(quick) == 0.1
    found = settings_of(quick)
    assert found.period == pytest.approx(100.0)
    assert found.zero_after == pytest.approx(600.0)


@pytest.mark.parametrize(
    ("scaling", "field"),
    [
        ({"tolerance": "1"}, "spec.scaling.tolerance"),
        (
            {"behavior": {"scaleUp": {"tolerance": "2"}}},
            "spec.scaling.behavior.scaleUp.tolerance",
        ),
    ],
)
def test_a_share_is_less_than_all(scaling: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidArgumentError, match="a share below 1") as caught:
        settings_of(spec(**scaling))
    assert caught.value.field == field
