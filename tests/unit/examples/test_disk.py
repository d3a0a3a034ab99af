"""The walk from nothing looks for room on the disk before it begins."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

WALK = Path(__file__).parents[3] / "examples" / "kubernetes"


def _module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("walk_disk", WALK / "disk.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


disk = _module()


@pytest.fixture
def parts(tmp_path: Path) -> list[object]:
    found: list[object] = disk.parts(tmp_path, {"HOME": str(tmp_path / "home")})
    return found


def test_a_fresh_machine_needs_all_of_it(parts: list[object], tmp_path: Path) -> None:
    assert disk.complaint(parts, lambda path: 45 * disk.GB) == ""
    told = disk.complaint(parts, lambda path: 30 * disk.GB)
    assert told.startswith(f"the file system of {tmp_path} has 30.0 GB free, expected 41.1: ")
    assert "images in two nodes 20.0" in told


def test_what_is_there_counts(parts: list[object], tmp_path: Path) -> None:
    for path, megabytes in ((".cluster/stores/node1/blob", 3), (".cache/wheels/torch", 2)):
        file = tmp_path / path
        file.parent.mkdir(parents=True)
        file.write_bytes(b"x" * megabytes * 10**6)
    lacking = {part.what: part.lacking() for part in parts}  # type: ignore[attr-defined]
    assert lacking["images in two nodes"] == pytest.approx(19_997_000_000, abs=10_000)
    assert lacking["packages and layers of images"] == pytest.approx(9_398_000_000, abs=10_000)
    assert lacking["archives of images"] == 4 * disk.GB


def test_programs_that_are_built_need_no_caches(parts: list[object], tmp_path: Path) -> None:
    made = tmp_path / ".tools" / "cluster" / "kube"
    made.parent.mkdir(parents=True)
    made.touch()
    told = disk.complaint(parts, lambda path: 0)
    assert "Go" not in told
    assert "expected 33.4" in told


def test_gos_caches_are_where_it_was_told(tmp_path: Path) -> None:
    given = {"GOCACHE": "/one", "GOPATH": "/two:/three", "HOME": "/home/somebody"}
    (places,) = (part.places for part in disk.parts(tmp_path, given) if "Go" in part.what)
    assert places == (Path("/one"), Path("/two/pkg/mod"))


def test_each_file_system_is_looked_at_by_itself() -> None:
    here, there = disk.Part("one", 1, (Path("/proc/none"),)), disk.Part("two", 2, (Path("/none"),))
    told = disk.complaint([here, there], lambda path: disk.GB if path == Path("/") else 0)
    assert told == (
        "the file system of /proc has 0.0 GB free, expected 1.0: one 1.0; "
        "the file system of / has 1.0 GB free, expected 2.0: two 2.0"
    )


def test_the_walk_begins_with_it(tmp_path: Path) -> None:
    """Nothing is started where there is no room."""
    code = (
        f"import sys; sys.path.insert(0, {str(WALK)!r}); import disk, walkthrough\n"
        "disk.complaint = lambda parts: 'no room'\n"
        "walkthrough.run = lambda *command, **options: sys.exit('began')\n"
        "walkthrough.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PATH": "/nowhere", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr.strip()) == (1, "no room")
