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


def test_after_the_store_was_away_silence_counts_anew_and_later() -> None:
    leases = Leases(2)
    leases.observe({"a": 1, "b": 7})
    leases.observe({"a": 2, "b": 7})
    leases.forgive(3)
    looks = [leases.observe({"a": 2, "b": 7}) for _ in range(2)]
    # One that beats is as all others are from then on.
    looks += [leases.observe({"a": 3, "b": 7}) for _ in range(4)]
    assert looks == [{}, {}, {}, {}, {"a": 3}, {"a": 3, "b": 7}]


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
