"""What Prometheus says, asked in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from disagfusion_operator.scaling.load import Load, Source
from disagfusion_operator.scaling.view import Key

from disagfusion.scheduling.observation import Missing
from disagfusion.scheduling.prometheus.answers import Answer, Outcome
from disagfusion.scheduling.prometheus.queries import Scope

A, B = Key("one", "a"), Key("one", "b")
SOURCE = Source("http://prometheus.test", period=0.01)


class Asker:
    """Remembers what it is asked."""

    def __init__(self) -> None:
        self.asked: list[list[tuple[str, str]]] = []
        self.scopes: list[Scope] = []

    def ask(
        self, pipelines: Sequence[tuple[str, str]], scope: Scope
    ) -> Mapping[tuple[str, str], Mapping[str, Outcome]]:
        self.asked.append(list(pipelines))
        self.scopes.append(scope)
        return {one: {"queued": Answer(1.0, {"value": {(): 1.0}})} for one in pipelines}


async def until(holds: Callable[[], Any]) -> None:
    while not holds():  # noqa: ASYNC110 -- threads tell nobody
        await asyncio.sleep(0.002)


async def test_pipelines_of_one_source_are_asked_for_together() -> None:
    asker = Asker()
    load = Load(lambda source: asker, clock=lambda: 7.0)
    assert load.last(A) is None
    load.watch(A, SOURCE, "a")
    load.watch(B, SOURCE, "emulated-b")
    await until(lambda: load.last(A) and load.last(B))
    answers = load.last(B)
    assert answers is not None
    assert answers.at == 7.0
    assert isinstance(answers.outcomes["queued"], Answer)
    assert [("one", "a"), ("one", "emulated-b")] in asker.asked
    assert (asker.scopes[0].window, asker.scopes[0].stale) == (60.0, 30.0)
    await load.aclose()


async def test_it_asks_again_every_period_until_nobody_wants_to_know() -> None:
    asker = Asker()
    load = Load(lambda source: asker)
    load.watch(A, SOURCE, "a")
    await until(lambda: len(asker.asked) >= 3)
    load.forget(A)
    assert load.last(A) is None
    running = [task for task in asyncio.all_tasks() if task.get_name() == "load"]
    await until(lambda: all(task.done() for task in running))
    await load.aclose()


async def test_another_source_has_questions_of_its_own() -> None:
    askers: dict[Source, Asker] = {}
    load = Load(lambda source: askers.setdefault(source, Asker()))
    other = Source("http://other.test", token="secret", matchers=('x="1"',), period=0.01)
    load.watch(A, SOURCE, "a")
    load.watch(B, other, "b")
    await until(lambda: load.last(A) and load.last(B))
    assert askers[SOURCE].asked[0] == [("one", "a")]
    assert askers[other].asked[0] == [("one", "b")]
    assert askers[other].scopes[0].matchers == ('x="1"',)
    assert "secret" not in repr(other)
    again = Source("http://other.test", token="new", period=0.01)
    load.watch(B, again, "b")
    assert load.last(B) is not None, "another token is no other Prometheus"
    load.watch(B, SOURCE, "b")
    assert load.last(B) is None, "what another one said is not this one's"
    await until(lambda: load.last(B))
    await load.aclose()


async def test_an_address_that_is_none_is_told() -> None:
    load = Load()
    load.watch(A, Source("http://user:password@host", period=0.01), "a")
    await until(lambda: load.last(A))
    answers = load.last(A)
    assert answers is not None
    outcome = answers.outcomes["jobs"]
    assert isinstance(outcome, Missing)
    assert "credentials" in outcome.why
    await load.aclose()


async def test_a_prometheus_that_is_away_is_told() -> None:
    load = Load()
    load.watch(A, Source("http://127.0.0.1:1", period=0.01), "a")
    await until(lambda: load.last(A))
    answers = load.last(A)
    assert answers is not None
    assert all(isinstance(one, Missing) for one in answers.outcomes.values())
    await load.aclose()
