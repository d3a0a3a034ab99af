"""What the transport benchmark compares runs, and measures what it says."""

from pathlib import Path

import pytest

from benchmarks import transport
from benchmarks.transportkit import ours
from benchmarks.transportkit.contender import Contender

KIBIBYTE = 1 << 10


@pytest.mark.parametrize(
    "contender", transport.CONTENDERS, ids=[f"{c.name} {c.over}" for c in transport.CONTENDERS]
)
def test_every_contender_moves_bytes(contender: Contender) -> None:
    sizes = [1024 * KIBIBYTE]
    rates = contender.measure(sizes, 0.02)
    assert list(rates) == sizes
    assert all(1e6 < rate < 1e12 for rate in rates.values())


@pytest.mark.parametrize(
    ("way", "carrier"), [(ours.Way("ucx"), "ucx/shm"), (ours.Way("tcp"), "tcp")]
)
def test_small_hand_overs_and_a_mesh(way: ours.Way, carrier: str) -> None:
    small = ours.measure_small(way, 16 * KIBIBYTE, 0.05)
    assert small["transport"] == carrier
    assert small["hand_overs_per_second"].keys() == {"1", "2", "8"}
    mesh = ours.measure_mesh(way, 2, 64 * KIBIBYTE, 0.2)
    assert len(mesh["hand_overs_by_pair"]) == 4
    assert min(mesh["hand_overs_by_pair"]) > 1
    assert 0.25 <= mesh["jain_index"] <= 1


def test_the_plot_shows_every_contender(tmp_path: Path) -> None:
    rates: dict[str, dict[str, dict[str, float]]] = {"shm": {}, "tcp": {}}
    for number, contender in enumerate(transport.CONTENDERS):
        rates[contender.over][contender.name] = dict.fromkeys(transport.SIZES, float(number))
    transport.plot(transport.Report({}, rates, {}, {}, {}, {}, ""), tmp_path / "plot.svg")
    drawn = (tmp_path / "plot.svg").read_text()
    assert all(f">{contender.name}<" in drawn for contender in transport.CONTENDERS)
