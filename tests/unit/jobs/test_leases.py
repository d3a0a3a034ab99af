"""Who is dead, by beats that are looked at."""

import pytest

from disagfusion.jobs.leases import RESIGNED, Leases


def test_a_gateway_that_beats_lives() -> None:
    leases = Leases(2)
    for beat in range(10):
        assert leases.observe({"a": beat, "b": beat // 2}) == {}


def test_one_that_is_silent_for_so_many_looks_is_dead() -> None:
    leases = Leases(3)
    looks = [leases.observe({"a": beat, "b": 7}) for beat in range(5)]
    assert looks == [{}, {}, {}, {"b": 7}, {"b": 7}]


def test_one_beat_begins_the_count_anew() -> None:
    leases = Leases(2)
    assert [leases.observe({"b": count}) for count in (1, 1, 2, 2, 2)] == [{}, {}, {}, {}, {"b": 2}]


def test_one_that_comes_back_under_its_name_is_new() -> None:
    leases = Leases(1)
    leases.observe({"b": 0})
    leases.observe({})
    assert leases.observe({"b": 0}) == {}


def test_one_that_resigned_is_dead_at_once() -> None:
    assert Leases(5).observe({"a": 0, "b": RESIGNED}) == {"b": RESIGNED}


def test_a_death_takes_a_look() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Leases(0)
