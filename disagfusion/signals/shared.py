"""One set of questions about many pipelines that one Prometheus scrapes."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from itertools import repeat

from disagfusion.scheduling.prometheus.answers import Answer, Key, Outcome
from disagfusion.scheduling.prometheus.queries import QUERIES, Scope
from disagfusion.signals.prometheus import PrometheusClient

PIPELINE = "pipeline"
AT_A_TIME = 50
"""Pipelines in one question: an answer about more is long to parse in one piece."""


@dataclass(frozen=True, slots=True)
class SharedScope(Scope):
    """What is asked about: several pipelines, which `pipelines` names instead of `pipeline`.

    Attributes:
        pipelines: Values of the label `pipeline`.
    """

    pipelines: tuple[str, ...] = ()

    def select(self, metric: str, *matchers: str) -> str:
        """Return a selector of the pipelines' series of a metric."""
        names = json.dumps("|".join(map(re.escape, self.pipelines)), ensure_ascii=False)
        return f"{metric}{{{', '.join((f'{PIPELINE}=~{names}', *self.matchers, *matchers))}}}"


class SharedQuestions:
    """Asks about many pipelines at once, and tells the answers apart.

    Args:
        client: To Prometheus.
        executor: Asks in its threads.
        namespace_label: Label that tells pipelines of the same name apart; empty: there is none.
            Series that do not have it are the only pipeline's of that name.
    """

    def __init__(self, client: PrometheusClient, executor: Executor, namespace_label: str) -> None:
        self._client = client
        self._executor = executor
        self._group = (namespace_label, PIPELINE) if namespace_label else (PIPELINE,)

    def ask(
        self, pipelines: Sequence[tuple[str, str]], scope: Scope
    ) -> dict[tuple[str, str], dict[str, Outcome]]:
        """Ask everything about all; to be called in a thread of its own.

        Args:
            pipelines: (namespace, name) of each.
            scope: Window, staleness and matchers; its pipeline is not looked at.

        Returns:
            What came of each query, by its name, for each pipeline.
        """
        found: dict[tuple[str, str], dict[str, Outcome]] = {one: {} for one in pipelines}
        names = Counter(name for _, name in pipelines)
        alone = {name for name, count in names.items() if count == 1}
        for begin in range(0, len(pipelines), AT_A_TIME):
            some = pipelines[begin : begin + AT_A_TIME]
            shared = SharedScope(
                "",
                scope.window,
                scope.stale,
                scope.matchers,
                tuple(sorted({name for _, name in some})),
            )
            asked = [replace(query, by=(*self._group, *query.by)) for query in QUERIES]
            outcomes = self._executor.map(self._client.ask, asked, repeat(shared))
            for query, outcome in zip(asked, outcomes, strict=True):
                for one, part in self._apart(outcome, some, alone).items():
                    found[one][query.name] = part
        return found

    def _apart(
        self, outcome: Outcome, pipelines: Sequence[tuple[str, str]], alone: Collection[str]
    ) -> Mapping[tuple[str, str], Outcome]:
        if not isinstance(outcome, Answer):
            return dict.fromkeys(pipelines, outcome)
        width = len(self._group)
        parts: dict[Key, dict[str, dict[Key, float | None]]] = {}
        for part, values in outcome.parts.items():
            for key, value in values.items():
                told = parts.setdefault(key[:width], {})
                told.setdefault(part, {})[key[width:]] = value

        def mine(one: tuple[str, str]) -> Mapping[str, Mapping[Key, float | None]]:
            found = parts.get(one[-width:], {})
            return found or (parts.get(("", one[1]), {}) if one[1] in alone else {})

        return {one: Answer(outcome.at, mine(one)) for one in pipelines}
