"""The check of the locks: it accepts the ones checked in, and finds what it is for."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tools import check_requirements

LOCKS = check_requirements.ROOT / "requirements"


@pytest.fixture
def edited(tmp_path: Path) -> Callable[[str, Callable[[str], str]], list[str]]:
    def edit(name: str, change: Callable[[str], str]) -> list[str]:
        directory = tmp_path / "requirements"
        shutil.copytree(LOCKS, directory)
        path = directory / name
        path.write_text(change(path.read_text()))
        return check_requirements.problems(directory)

    return edit


def test_the_locks_checked_in_are_right() -> None:
    assert check_requirements.problems(LOCKS) == []


@pytest.mark.parametrize(
    ("name", "change", "found"),
    [
        ("sdk.txt", lambda text: "--index-url https://example.org/simple\n" + text, "an option"),
        ("sdk.txt", lambda text: text + "# from https://example.org\n", "names a host"),
        ("sdk.txt", lambda text: text + "# via -r /home/someone/x.txt\n", "or a path"),
        ("sdk.txt", lambda text: text + "left-pad>=1\n", "not pinned"),
        ("sdk.txt", lambda text: text + "left-pad==1.0\n", "no hash"),
        ("sdk.txt", lambda text: text.replace("\ngrpcio==", "\ngrpcio-x=="), "grpcio>=1.74"),
        (
            "gateway.txt",
            lambda text: text.replace("\nsqlalchemy==2.", "\nsqlalchemy==1."),
            "sqlalchemy>=",
        ),
        ("stage.txt", lambda text: text.replace("\npillow==", "\npillow==9"), "not as in dev.txt"),
        ("dev.txt", lambda text: text.replace("\ntorch==2.", "\ntorch==3."), "torch<2.14"),
    ],
)
def test_what_is_wrong_is_found(
    edited: Callable[[str, Callable[[str], str]], list[str]],
    name: str,
    change: Callable[[str], str],
    found: str,
) -> None:
    problems = edited(name, change)
    assert any(found in problem and name in problem for problem in problems), problems
