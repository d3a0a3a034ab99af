"""What answers mean: only what was measured lately is a value, and nothing becomes zero."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from disagfusion.scheduling.observation import Fresh, Invalid, Missing, Stale
from disagfusion.scheduling.prometheus import queries
from disagfusion.scheduling.prometheus.answers import (
    Answer,
    amount,
    parse,
    share,
    signal,
    whole,
)
from disagfusion.scheduling.prometheus.queries import Scope

SCOPE = Scope("p", stale=60.0)
AT = 1_700_000_000.0
NOW = 500.0
KEY = ("dit", "waiting")


def sample(part: str, value: object, time: object = AT, **labels: str) -> dict[str, Any]:
    metric = {"stage": "dit", "status": "waiting", "part": part, **labels}
    return {"metric": metric, "value": [time, value]}


def body(*samples: object, **fields: object) -> bytes:
    data = {"resultType": "vector", "result": list(samples)}
    return json.dumps({"status": "success", "data": data, **fields}).encode()


def measured(value: object, *, age: float = 1.0, last: object = "9") -> bytes:
    parts = [] if value is None else [sample("value", value)]
    return body(*parts, sample("last", last), sample("at", repr(AT - age)))


def read(answer: bytes, status: int = 200, convert: Callable[[float], Any] = whole) -> object:
    return signal(parse(queries.JOBS, status, answer), KEY, SCOPE, NOW, convert)


def test_a_value_measured_lately_is_fresh_and_has_its_time() -> None:
    assert read(measured("7", age=12.0)) == Fresh(7, NOW - 12.0)
    assert read(measured("0", age=0.0)) == Fresh(0, NOW)
    assert read(measured("0.25"), convert=share) == Fresh(0.25, NOW - 1.0)


def test_a_value_whose_series_are_all_old_is_stale() -> None:
    assert read(measured(None, age=200.0, last="3")) == Stale(3, NOW - 200.0)


def test_a_server_that_calls_an_old_sample_current_is_not_believed() -> None:
    assert read(measured("7", age=61.0)) == Stale(7, NOW - 61.0)


def test_an_empty_answer_is_missing_and_not_zero() -> None:
    found = read(body())
    assert isinstance(found, Missing)
    assert found.why == "Prometheus has no such series: dit, waiting"


def test_another_stages_series_say_nothing_about_this_one() -> None:
    others = [sample(part, "1", stage="decoder") for part in ("value", "last", "at")]
    assert isinstance(read(body(*others)), Missing)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("NaN", "not a number"),
        ("nan", "not a number"),
        ("+Inf", "infinite"),
        ("-Inf", "infinite"),
        ("-1", "negative: -1"),
        ("2.5", "whole number, not 2.5"),
        ("1e999", "infinite"),
    ],
)
def test_a_value_that_is_none_is_invalid(value: str, why: str) -> None:
    found = read(measured(value))
    assert isinstance(found, Invalid)
    assert why in found.why
    # Nor is it hidden by being old.
    assert isinstance(read(measured(None, age=200.0, last=value)), Invalid)


def test_a_share_above_one_is_invalid() -> None:
    assert isinstance(read(measured("1.5"), convert=share), Invalid)
    assert read(measured("1.0000000001"), convert=share) == Fresh(1.0, NOW - 1.0)
    assert read(measured("1.5"), convert=amount) == Fresh(1.5, NOW - 1.0)


@pytest.mark.parametrize("age", [-1000.0, float("nan"), float("inf"), float("-inf")])
def test_a_value_without_a_sensible_time_is_invalid(age: float) -> None:
    assert isinstance(read(measured("1", age=age)), Invalid)


def test_a_value_without_a_time_is_invalid() -> None:
    assert isinstance(read(body(sample("value", "1"))), Invalid)


@pytest.mark.parametrize("part", ["value", "at"])
def test_two_values_for_one_set_of_labels_are_invalid(part: str) -> None:
    parts = [sample("value", "1"), sample("last", "1"), sample("at", repr(AT))]
    found = read(body(*parts, sample(part, repr(AT))))
    assert found == Invalid("there are two values for one set of labels")


@pytest.mark.parametrize(
    ("status", "answer", "why"),
    [
        (503, b"", "answered 503"),
        (502, b"<html>Bad Gateway</html>", "Bad Gateway"),
        (302, b"", "answered 302"),
        (401, b"Unauthorized", "Unauthorized"),
        (
            422,
            b'{"status":"error","errorType":"execution","error":"query timed out"}',
            "execution query timed out",
        ),
        (200, b'{"status":"error","errorType":"timeout","error":"slow"}', "timeout slow"),
        (503, measured("0"), "answered 503"),
    ],
)
def test_a_server_that_cannot_answer_is_missing(status: int, answer: bytes, why: str) -> None:
    found = read(answer, status)
    assert isinstance(found, Missing)
    assert why in found.why


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"0",
        b"null",
        b"[]",
        b"<html></html>",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"data": {}}',
        b'{"status": "success"}',
        b'{"status": "success", "data": null}',
        b'{"status": "success", "data": {"resultType": "scalar", "result": [1, "0"]}}',
        b'{"status": "success", "data": {"resultType": "matrix", "result": []}}',
        b'{"status": "success", "data": {"resultType": "vector", "result": null}}',
        b'{"status": "success", "data": {"resultType": "vector", "result": {}}}',
        body(None),
        body({}),
        body({"metric": {}, "value": [AT, "0"]}),
        body(sample("else", "0")),
        body(sample("value", "0", pod="a")),
        body(sample("value", 0)),
        body(sample("value", None)),
        body(sample("value", "")),
        body(sample("value", "zero")),
        body(sample("value", "1_0")),
        body(sample("value", " 1")),
        body(sample("value", "0", time="never")),
        body(sample("value", "0", time=None)),
        body(sample("value", "0"), sample("at", "1", time=AT - 5)),
        body({"metric": {"part": "value"}, "value": ["0"]}),
        measured("0").replace(b'"vector"', b'"vector", "x": NaN').replace(b"vector", b"v"),
    ],
)
def test_what_is_no_answer_is_invalid(answer: bytes) -> None:
    assert isinstance(read(answer), Invalid)


def test_a_partial_answer_is_invalid() -> None:
    warned = json.loads(measured("1")) | {"warnings": ["receive series from store-2: timeout"]}
    found = read(json.dumps(warned).encode())
    assert isinstance(found, Invalid)
    assert "store-2" in found.why
    # A remark about how something was asked takes nothing away.
    told = json.loads(measured("1")) | {"infos": ["metric might not be a counter"]}
    assert read(json.dumps(told).encode()) == Fresh(1, NOW - 1.0)


def test_labels_that_are_empty_are_left_out_by_prometheus() -> None:
    parts = [
        {"metric": {"stage": "dit", "part": part}, "value": [AT, value]}
        for part, value in {"value": "2", "last": "2", "at": repr(AT)}.items()
    ]
    outcome = parse(queries.JOBS, 200, body(*parts))
    assert signal(outcome, ("dit", ""), SCOPE, NOW, whole) == Fresh(2, NOW)


@given(st.binary(max_size=200))
def test_no_bytes_become_a_value(answer: bytes) -> None:
    assert not isinstance(read(answer), Fresh | Stale)


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["status", "data", "result", "metric", "value", "part"]), inner
        )
    ),
    max_leaves=20,
)


@given(_JSON)
def test_no_document_stops_the_parser(document: object) -> None:
    text = json.dumps(document).encode()
    assert isinstance(parse(queries.JOBS, 200, text), Answer | Missing | Invalid)
    wrapped = {"status": "success", "data": {"resultType": "vector", "result": document}}
    assert not isinstance(read(json.dumps(wrapped).encode()), Fresh)


@given(st.floats(), st.floats(-1e6, 1e6))
def test_a_value_is_fresh_only_if_it_is_a_number_and_new(value: float, age: float) -> None:
    found = read(measured(repr(value), age=age), convert=amount)
    if isinstance(found, Fresh):
        assert 0.0 <= found.value < float("inf")
        assert NOW - SCOPE.stale <= found.at <= NOW
