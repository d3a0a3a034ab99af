"""One set of questions about many pipelines."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

import pytest

from disagfusion.scheduling.observation import Fresh, Invalid, Missing
from disagfusion.scheduling.prometheus.answers import Answer
from disagfusion.scheduling.prometheus.queries import QUERIES, Scope
from disagfusion.scheduling.prometheus.readings import read
from disagfusion.signals.prometheus import PrometheusClient
from disagfusion.signals.settings import PrometheusSettings
from disagfusion.signals.shared import AT_A_TIME, SharedQuestions, SharedScope

from .conftest import Server

STAGES = ("encoder", "dit", "decoder")
SCOPE = Scope("", window=60.0, stale=30.0, matchers=('cluster="x"',))


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as found:
        yield found


def asked(server: Server) -> list[str]:
    return [parse_qs(urlsplit(path).query)["query"][0] for path, _ in server.seen]


def questions(server: Server, threads: ThreadPoolExecutor, label: str) -> SharedQuestions:
    return SharedQuestions(PrometheusClient(PrometheusSettings(url=server.url)), threads, label)


def answer(
    server: Server, values: Mapping[str, Mapping[tuple[str, ...], float]], group: str
) -> None:
    """Answer questions that ask for these labels in front of the query's own."""
    names = {query.metric: query for query in QUERIES}

    def reply(request: BaseHTTPRequestHandler) -> None:
        text = parse_qs(urlsplit(request.path).query)["query"][0]
        query = next(
            query for metric, query in names.items() if metric in text and _is(query.name, text)
        )
        labels = (*group.split(), *query.by)
        now = time.time()
        result = [
            {
                "metric": {**dict(zip(labels, key, strict=True)), "part": part},
                "value": [now, told],
            }
            for key, value in values.get(query.name, {}).items()
            for part, told in {"value": repr(value), "last": repr(value), "at": repr(now)}.items()
        ]
        body = {"status": "success", "data": {"resultType": "vector", "result": result}}
        request.send_response(200)
        request.end_headers()
        request.wfile.write(json.dumps(body).encode())

    server.reply = reply


def _is(name: str, text: str) -> bool:
    """Tell apart queries of one metric."""
    marks = {
        "shares": "group_left",
        "reporting": "count by",
        "seconds": "_sum",
        "completed": "_count",
    }
    if name == "completed":
        return "_sum" not in text
    return name not in marks or marks[name] in text


def test_answers_are_told_apart_by_namespace_and_name(
    server: Server, threads: ThreadPoolExecutor
) -> None:
    jobs = {
        (space, "flux", "dit", status): count
        for space, count in (("one", 3.0), ("two", 5.0))
        for status in ("waiting", "transferring", "running")
    }
    answer(server, {"jobs": jobs, "queued": {("one", "flux"): 1.0}}, "namespace pipeline")
    pipelines = [("one", "flux"), ("two", "flux"), ("one", "wan")]
    found = questions(server, threads, "namespace").ask(pipelines, SCOPE)
    one, two, wan = (read(found[key], STAGES, SCOPE, 7.0) for key in pipelines)
    assert isinstance(one.waiting["dit"], Fresh)
    assert one.waiting["dit"].value == 3
    assert isinstance(two.waiting["dit"], Fresh)
    assert two.waiting["dit"].value == 5
    assert one.queued == Fresh(1, one.queued.at if isinstance(one.queued, Fresh) else 0.0)
    # Nobody has said anything of it: that is not zero.
    assert isinstance(wan.waiting["dit"], Missing)
    assert isinstance(two.queued, Missing)


def test_one_set_of_questions_is_asked_whatever_the_number_of_pipelines(
    server: Server, threads: ThreadPoolExecutor
) -> None:
    answer(server, {}, "namespace pipeline")
    pipelines = [("one", f"p{number}") for number in range(AT_A_TIME)]
    questions(server, threads, "namespace").ask(pipelines, SCOPE)
    assert len(server.seen) == len(QUERIES)
    server.seen.clear()
    questions(server, threads, "namespace").ask([*pipelines, ("one", "more")], SCOPE)
    assert len(server.seen) == 2 * len(QUERIES)
    for text in asked(server):
        assert 'cluster="x"' in text
        assert "by (namespace, pipeline" in text


def test_series_without_a_namespace_are_those_of_the_only_pipeline_of_that_name(
    server: Server, threads: ThreadPoolExecutor
) -> None:
    answer(server, {"queued": {("", "flux"): 4.0, ("", "wan"): 5.0}}, "namespace pipeline")
    pipelines = [("one", "flux"), ("two", "flux"), ("one", "wan")]
    found = questions(server, threads, "namespace").ask(pipelines, SCOPE)
    one, two, wan = (read(found[key], STAGES, SCOPE, 7.0).queued for key in pipelines)
    assert isinstance(one, Missing), "whose it is nobody can tell"
    assert isinstance(two, Missing)
    assert isinstance(wan, Fresh)
    assert wan.value == 5


def test_without_a_namespace_label_names_are_enough(
    server: Server, threads: ThreadPoolExecutor
) -> None:
    answer(server, {"queued": {("flux",): 4.0}}, "pipeline")
    found = questions(server, threads, "").ask([("one", "flux")], SCOPE)
    outcome = found["one", "flux"]["queued"]
    assert isinstance(outcome, Answer)
    assert outcome.parts["value"] == {(): 4.0}
    assert all("namespace" not in text for text in asked(server))


def test_what_goes_wrong_goes_wrong_for_all(server: Server, threads: ThreadPoolExecutor) -> None:
    server.say(b"no JSON")
    found = questions(server, threads, "namespace").ask([("one", "a"), ("one", "b")], SCOPE)
    assert all(isinstance(outcome, Invalid) for each in found.values() for outcome in each.values())
    assert list(found) == [("one", "a"), ("one", "b")]


def test_names_are_matched_as_they_are() -> None:
    scope = SharedScope("", 60.0, 30.0, (), ("a.b", "c"))
    assert scope.select("m", 'x="1"') == r'm{pipeline=~"a\\.b|c", x="1"}'
