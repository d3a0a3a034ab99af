"""The pairs in cases.yaml."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("cases.yaml")

SMALLEST: dict[str, Any] = {
    "apiVersion": "disagfusion.dev/v1alpha1",
    "kind": "DiffusionPipeline",
    "metadata": {"name": "digits"},
    "spec": {"model": {"builtin": "digits"}, "pools": {"cpu": {}}},
}


@dataclass(frozen=True)
class Case:
    """A constraint, what keeps it and what does not.

    Attributes:
        constraint: Its name, as tests/unit/operator/api/constraints.py makes it.
        before: What is there before, for rules of updates.
        accepted: A manifest.
        refused: Another.
        says: Part of what the API server then says.
    """

    constraint: str
    before: dict[str, Any] | None
    accepted: dict[str, Any]
    refused: dict[str, Any]
    says: str


def _texts(length: int, head: str) -> str:
    return head + "a" * (length - len(head))


class _Loader(yaml.SafeLoader):
    """Knows values of a certain size."""


def _sized(head: str) -> Any:
    return lambda loader, node: _texts(int(loader.construct_scalar(node)), head)


def _counted(loader: _Loader, node: yaml.SequenceNode) -> tuple[int, Any]:
    count, value = loader.construct_sequence(node, deep=True)
    return int(count), value


def _entries(loader: _Loader, node: yaml.SequenceNode) -> dict[str, Any]:
    count, value = _counted(loader, node)
    return {f"a{number}": value for number in range(1, count + 1)}


def _times(loader: _Loader, node: yaml.SequenceNode) -> list[Any]:
    count, value = _counted(loader, node)
    return [value] * count


for _tag, _head in (
    ("!letters", ""),
    ("!url", "https://"),
    ("!path", "a/"),
    ("!absolute", "/"),
):
    _Loader.add_constructor(_tag, _sized(_head))
_Loader.add_constructor(
    "!matcher", lambda loader, node: f'a="{"a" * (int(loader.construct_scalar(node)) - 4)}"'
)
_Loader.add_constructor(
    "!names",
    lambda loader, node: [f"a{n}" for n in range(1, int(loader.construct_scalar(node)) + 1)],
)
_Loader.add_constructor("!entries", _entries)
_Loader.add_constructor("!times", _times)


def cases() -> Iterator[Case]:
    """Yield every pair."""
    parts = yaml.load(FILE.read_text(encoding="utf-8"), _Loader)
    for part, found in parts.items():
        given = {"spec": found.get("given", {})}
        for separator, group in ((".", "fields"), (": ", "rules")):
            for name, case in found.get(group, {}).items():
                base = _merged(_merged(SMALLEST, given), {"spec": case.get("given", {})})
                at = found["at"].split(".")
                before = _patched(base, at, case["before"]) if "before" in case else None
                yield Case(
                    constraint=f"{part}{separator}{name}",
                    before=before,
                    accepted=_patched(before or base, at, case["accepted"]),
                    refused=_patched(before or base, at, case["refused"]),
                    says=case.get("says", name.partition(": ")[2] if group == "fields" else name),
                )


def _merged(whole: Any, patch: Any) -> Any:
    """Merge as RFC 7386 says: null takes a field away."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    made = dict(whole) if isinstance(whole, dict) else {}
    for name, value in patch.items():
        if value is None:
            made.pop(name, None)
        else:
            made[name] = _merged(made.get(name), value)
    return made


def _patched(whole: dict[str, Any], at: list[str], patch: Any) -> dict[str, Any]:
    made = copy.deepcopy(whole)
    place: Any = made
    for name in at[:-1]:
        place = place[int(name)] if isinstance(place, list) else place.setdefault(name, {})
    last = int(at[-1]) if isinstance(place, list) else at[-1]
    place[last] = _merged(place[last] if isinstance(place, list) else place.get(last), patch)
    return made
