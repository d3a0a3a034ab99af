"""What is chosen is what comes out when every worker is looked at for every job."""

import pytest
from dispatchkit.twins import Twins

from disagfusion.dispatch.settings import DispatchSettings

SETTINGS = [
    DispatchSettings(),
    DispatchSettings(waiting_per_slot=8),
    DispatchSettings(waiting_per_slot=8, queue_order="shortest"),
    DispatchSettings(max_in_flight=6, prefetch_horizon=1.0),
]


@pytest.mark.parametrize("seed", range(40))
def test_choices_are_those_of_the_reference(seed: int) -> None:
    twins = Twins(seed, SETTINGS[seed % len(SETTINGS)])
    for _ in range(500):
        twins.step()
    assert twins.assigned > 10
