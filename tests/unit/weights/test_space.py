"""Room for what is to come."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import pytest

from disagfusion.pipeline.model_files import RECORD_NAME
from disagfusion.weights import space
from disagfusion.weights.cache import (
    IN_USE_NAME,
    Entry,
    Record,
    Tree,
    hold,
    read_record,
    unused,
)
from disagfusion.weights.errors import NoSpaceError

MIB = 1 << 20


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(space, "free_bytes", lambda _: 100 << 30)
    return tmp_path


def model(cache: Path, name: str, size: int, used_ago: float) -> Tree:
    tree = Tree(cache, name, "v1")
    tree.create()
    (tree.path / "weights").write_bytes(b"x")
    record = Record(name, "v1", "v1", (), {"weights": Entry(size, "0" * 64, 0)})
    tree.write(record)
    used = os.stat(tree.path).st_mtime - used_ago
    os.utime(tree.path / RECORD_NAME, (used, used))
    return tree


def test_what_does_not_fit_is_said_before_it_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "free_bytes", lambda _: 10 << 30)
    tree = Tree(tmp_path, "new", "v1")
    space.make_room(tmp_path, tree, 9 << 30, None, lambda *_: None)
    with pytest.raises(NoSpaceError) as error:
        space.make_room(tmp_path, tree, 23 << 30, None, lambda *_: None)
    assert error.value.message == (
        f"23.00 GiB are to be fetched into {tmp_path} and 0.25 GiB to be left, "
        "but 10.00 GiB are free"
    )
    assert error.value.status == 5


def test_nothing_goes_unless_it_is_asked_for(cache: Path) -> None:
    old = model(cache, "old", 50 * MIB, 10**6)
    space.make_room(cache, Tree(cache, "new", "v1"), 60 * MIB, None, lambda *_: None)
    assert read_record(old.path) is not None


def test_what_was_used_least_recently_goes_first_and_no_more_than_needed(cache: Path) -> None:
    oldest = model(cache, "oldest", 30 * MIB, 10**6)
    older = model(cache, "older", 30 * MIB, 10**5)
    old = model(cache, "old", 30 * MIB, 10**4)
    gone: list[tuple[str, int]] = []
    new = Tree(cache, "new", "v1")
    space.make_room(cache, new, 40 * MIB, 100 * MIB, lambda *it: gone.append(it))
    assert gone == [("oldest", 30 * MIB)]
    assert [tree.path.exists() for tree in (oldest, older, old)] == [False, True, True]
    assert space.used_bytes(cache) == 60 * MIB


def test_what_is_in_use_or_young_stays(cache: Path) -> None:
    used = model(cache, "used", 40 * MIB, 10**6)
    young = model(cache, "young", 40 * MIB, 10)
    let_go = hold(str(used.path))
    new = Tree(cache, "new", "v1")
    gone: list[str] = []
    with pytest.raises(NoSpaceError, match=r"models in use take 80\.00 MiB|0\.08 GiB of the"):
        space.make_room(cache, new, 40 * MIB, 100 * MIB, lambda name, _: gone.append(name))
    assert gone == []
    let_go()
    space.make_room(cache, new, 40 * MIB, 100 * MIB, lambda name, _: gone.append(name))
    assert gone == ["used"]
    assert young.path.exists()


def test_what_is_fetched_itself_stays(cache: Path) -> None:
    tree = model(cache, "this", 60 * MIB, 10**6)
    with pytest.raises(NoSpaceError):
        space.make_room(cache, tree, 60 * MIB, 100 * MIB, lambda *_: None)
    assert tree.path.exists()


def test_holding_what_is_no_cache_does_nothing(tmp_path: Path) -> None:
    hold(str(tmp_path))()
    hold("acme/model")()


def test_what_somebody_else_fetches_stays(cache: Path) -> None:
    other = model(cache, "other", 90 * MIB, 10**6)
    new = Tree(cache, "new", "v1")
    with other.held(), pytest.raises(NoSpaceError):
        space.make_room(cache, new, 60 * MIB, 100 * MIB, lambda *_: None)
    space.make_room(cache, new, 60 * MIB, 100 * MIB, lambda *_: None)
    assert not other.path.exists()


def test_who_comes_while_it_is_evicted_finds_it_made_anew(cache: Path) -> None:
    tree = model(cache, "other", 1, 0)
    entered, leave = threading.Event(), threading.Event()
    there: list[bool] = []

    def enter() -> None:
        with tree.held():
            there.append((tree.path / IN_USE_NAME).exists())
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=enter)
    with unused(tree.path) as nobody:
        assert nobody
        thread.start()
        assert not entered.wait(0.2)
        shutil.rmtree(tree.path)
    assert entered.wait(30)
    assert there == [True]
    with unused(tree.path) as nobody:
        assert not nobody
    leave.set()
    thread.join(30)
