"""The measured headline: groups with limits of memory, and what is read off a run."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from benchmarks.headline_real import arrivals, digest, earlier, equal, nearest_rank, show
from benchmarks.headlinekit import cgroups
from benchmarks.headlinekit.cgroups import Group, Hierarchy, Shares, find_hierarchy
from disagfusion.errors import FailedPreconditionError

MEBIBYTE = 2**20


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def test_limits_need_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(FailedPreconditionError, match="need root"):
        find_hierarchy(tmp_path)


@pytest.mark.usefixtures("root")
def test_version_2_has_its_controller_enabled(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    control = tmp_path / "cgroup.subtree_control"
    control.write_text("cpu\n")
    assert find_hierarchy(tmp_path) == Hierarchy(2, tmp_path)
    assert control.read_text() == "+memory"


@pytest.mark.usefixtures("root")
def test_version_1_stays_below_the_own_group(tmp_path: Path) -> None:
    (tmp_path / "memory").mkdir()
    (tmp_path / "memory" / "memory.limit_in_bytes").touch()
    own = tmp_path / "own"
    own.write_text("9:name=systemd:/a\n4:memory,x:/jobs/7\n0::/\n")
    assert find_hierarchy(tmp_path, own) == Hierarchy(1, tmp_path / "memory" / "jobs" / "7")


@pytest.mark.usefixtures("root")
def test_without_the_memory_controller(tmp_path: Path) -> None:
    with pytest.raises(FailedPreconditionError, match="no cgroup hierarchy"):
        find_hierarchy(tmp_path)


@pytest.mark.parametrize("version", [1, 2])
def test_a_share_of_a_core(version: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroups, "find_hierarchy", lambda controller: Hierarchy(version, tmp_path))
    shares = Shares(0.35)
    shares.add(77)
    shares.add(77)
    (directory,) = tmp_path.iterdir()
    written = {file.name: file.read_text() for file in directory.iterdir()}
    limit = {
        1: {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "35000"},
        2: {"cpu.max": "35000 100000"},
    }[version]
    assert written == limit | {"cgroup.procs": "77"}
    for file in directory.iterdir():  # The kernel's own files do not keep it from being removed.
        file.unlink()
    shares.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", [1, 2])
def test_what_the_kernel_counts(version: int, tmp_path: Path) -> None:
    group = Group(Hierarchy(version, tmp_path), "it", 100)
    files = {
        1: {
            "memory.stat": f"total_cache {MEBIBYTE}\ntotal_rss {2 * MEBIBYTE}\npgmajfault 7\n"
            "total_workingset_refault_file 512\n",
            "memory.oom_control": "oom_kill_disable 0\noom_kill 1\n",
            "memory.max_usage_in_bytes": f"{50 * MEBIBYTE}\n",
            "memory.failcnt": "3\n",
        },
        2: {
            "memory.stat": f"file {MEBIBYTE}\nanon {2 * MEBIBYTE}\npgmajfault 7\n"
            "workingset_refault_file 512\n",
            "memory.events": "low 0\nmax 3\noom_kill 1\n",
            "memory.peak": f"{50 * MEBIBYTE}\n",
        },
    }[version]
    for name, text in files.items():
        (group.directory / name).write_text(text)
    memory = group.memory()
    assert (memory.limit, memory.peak, memory.page_cache, memory.anonymous) == (100, 50, 1, 2)
    assert (memory.hits, memory.major_faults, memory.killed) == (3, 7, 1)
    assert memory.read_again == 512 * resource.getpagesize() / MEBIBYTE
    limit = "memory.max" if version == 2 else "memory.limit_in_bytes"
    assert (group.directory / limit).read_text() == str(100 * MEBIBYTE)


def test_a_process_that_needs_more_is_killed() -> None:
    problem = ""
    try:
        group = Group(find_hierarchy(), "test", 64)
    except FailedPreconditionError as error:
        problem = error.message
    if problem:
        # Without the right to make one, that is what is said.
        assert "root" in problem or "group" in problem
        return
    with group:
        code = "import sys; block = b'x' * (int(sys.argv[1]) << 20)"
        sizes = {
            size: subprocess.run(
                group.command([sys.executable, "-c", code, str(size)]), check=False
            ).returncode
            for size in (16, 200)
        }
        assert sizes == {16: 0, 200: -9}
        assert group.memory().killed == 1
        assert 16 < group.memory().peak <= 64
    assert not group.directory.exists()


def test_ranks() -> None:
    values = [float(value) for value in range(20, 0, -1)]
    assert nearest_rank(values, 0.5) == 10
    assert nearest_rank(values, 0.95) == 19
    assert nearest_rank([3.0], 0.95) == 3


def test_arrivals_are_the_same_for_every_system() -> None:
    times = arrivals(2000, 0.5)
    assert times == arrivals(2000, 0.5)
    assert times == sorted(times)
    assert times[-1] / 2000 == pytest.approx(2.0, rel=0.05)
    assert arrivals(5, 1.0) == pytest.approx([time / 2 for time in times[:5]])


def picture(colour: tuple[int, int, int], kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), colour).save(buffer, format=kind)
    return buffer.getvalue()


def test_pixels_are_compared_and_not_files() -> None:
    assert digest(picture((1, 2, 3), "PNG")) == digest(picture((1, 2, 3), "BMP"))
    assert digest(picture((1, 2, 3), "PNG")) != digest(picture((1, 2, 4), "PNG"))


def report(**pictures: list[str]) -> dict[str, Any]:
    memory = {"peak": 900.0, "page_cache": 600.0, "anonymous": 500.0, "read_again": 34.0}
    return {
        "settings": {"limit": 1280, "jobs": 30, "rate": 0.3},
        "environment": {"cpus": 2},
        "cgroup_version": 1,
        "weights": {"text_encoder": 10, "transformer": 600 * MEBIBYTE},
        "fits": False,
        "systems": {
            name: {
                "processes": 3, "jobs_per_second": 0.5, "alone_seconds": 1.0,
                "paced": {"p50": 1.0, "p95": 2.0, "mean": 1.5},
                "pictures": digests, "memory": {"one": memory, "two": memory},
            }
            for name, digests in pictures.items()
        },
    }  # fmt: skip


def test_the_report_says_whether_pictures_are_equal() -> None:
    same = report(split=["a", "b"], resident=["a", "b"])
    assert equal(same)
    assert "split, resident are equal" in show(same)
    assert "is killed for want of memory" in show(same)
    row = next(line for line in show(same).splitlines() if line.startswith("split"))
    assert row.split() == ["split", "3", "0.500", "1.00", "1.00", "2.00", "900", "600", "500", "68"]
    other = report(split=["a", "b"], resident=["a", "c"])
    assert not equal(other)
    assert "split, resident DIFFER" in show(other)


def test_an_earlier_report_counts_if_its_settings_are_these(tmp_path: Path) -> None:
    file = tmp_path / "headline_real.json"
    assert earlier(file, {"limit": 1}) == {"settings": {"limit": 1}, "systems": {}}
    file.write_text('{"settings": {"limit": 1}, "systems": {"split": {}}}')
    assert earlier(file, {"limit": 1})["systems"] == {"split": {}}
    assert earlier(file, {"limit": 2})["systems"] == {}
