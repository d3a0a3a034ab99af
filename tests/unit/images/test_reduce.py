"""What is taken out of an environment, and what stays."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

REDUCE = runpy.run_path(str(Path(__file__).resolve().parents[3] / "Dockerfiles" / "reduce.py"))


@pytest.fixture
def library(tmp_path: Path) -> Path:
    """An environment with a package that brings a library under three names."""
    lib = tmp_path / "package" / "lib"
    lib.mkdir(parents=True)
    for name in ("libx.so", "libx.so.0", "libx.so.0.1.2"):
        (lib / name).write_bytes(b"x" * 1000)
    (lib / "liby.so").write_bytes(b"y" * 1000)
    (lib / "libx.a").write_bytes(b"a" * 500)
    (lib / "libx.la").write_bytes(b"l" * 50)
    (lib / "data.so.txt").write_bytes(b"x" * 1000)
    return lib


def test_archives_for_linkers_go(library: Path, tmp_path: Path) -> None:
    assert REDUCE["remove_archives"](tmp_path) == 550
    assert not list(library.glob("*.a")) + list(library.glob("*.la"))
    assert len(list(library.iterdir())) == 5


def test_equal_libraries_become_links_to_the_full_name(library: Path, tmp_path: Path) -> None:
    assert REDUCE["link_equal"](tmp_path) == 2000
    assert (library / "libx.so").readlink() == Path("libx.so.0.1.2")
    assert (library / "libx.so.0").read_bytes() == b"x" * 1000
    assert not (library / "libx.so.0.1.2").is_symlink()
    assert not (library / "liby.so").is_symlink()
    assert not (library / "data.so.txt").is_symlink()


def test_a_second_time_changes_nothing(library: Path, tmp_path: Path) -> None:
    REDUCE["link_equal"](tmp_path)
    assert REDUCE["link_equal"](tmp_path) == 0
    assert REDUCE["remove_archives"](tmp_path) == 550
    assert REDUCE["remove_archives"](tmp_path) == 0


def test_links_to_archives_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside.a"
    outside.write_bytes(b"a")
    inside = tmp_path / "environment"
    inside.mkdir()
    (inside / "link.a").symlink_to(outside)
    assert REDUCE["remove_archives"](inside) == 0
    assert outside.exists()
