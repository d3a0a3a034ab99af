"""`make demo` and the overhead benchmark run, and notice what they are there to notice."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from benchmarks.memory import Growth

ROOT = Path(__file__).parents[3]
DEMO = ROOT / "examples" / "demo"

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def demo() -> ModuleType:
    sys.path.insert(0, str(DEMO))
    specification = importlib.util.spec_from_file_location("disagfusion_demo", DEMO / "demo.py")
    assert specification
    assert specification.loader
    module = importlib.util.module_from_spec(specification)
    sys.modules[module.__name__] = module  # dataclasses look their module up
    specification.loader.exec_module(module)
    return module


def test_the_demo_draws_ten_digits_and_keeps_what_it_promises(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, DEMO / "demo.py", "--output", tmp_path / "demo"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("yes  ") == 4
    assert "20 of 20 comparisons" in done.stdout
    for digit in range(10):
        with Image.open(tmp_path / "demo" / f"digit-{digit}.png") as picture:
            assert picture.size == (64, 64)
    assert (tmp_path / "demo" / "contact-sheet.png").stat().st_size > 1000


def test_one_wrong_pixel_is_seen(demo: ModuleType) -> None:
    one = Image.new("RGB", (64, 64), "red")
    other = one.copy()
    assert demo.same_pixels(one, other)
    other.putpixel((63, 63), (255, 0, 1))
    assert not demo.same_pixels(one, other)
    assert not demo.same_pixels(one, one.convert("RGBA"))
    assert not demo.same_pixels(one, one.resize((32, 32)))


def test_a_tensor_over_grpc_is_seen(demo: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    Account = demo.GrpcAccount

    def judge(control: int, data_plane: int) -> bool:
        # Before and after each of two jobs; the second has 100,000 bytes more of tensors.
        states = iter(
            [
                Account(0, 0, 0),
                Account(5_000, 900, 10_000),
                Account(5_000, 900, 10_000),
                Account(10_000 + control, 1_800, 120_000 + data_plane),
            ]
        )
        tensors = iter([10_000, 110_000])
        monkeypatch.setattr(demo, "grpc_account", lambda _: next(states))
        monkeypatch.setattr(demo, "tensor_bytes", lambda _: next(tensors))
        client = type("Client", (), {"generate": lambda *_, **__: None})()
        holds: bool = demo.check_grpc(client, None).holds
        return holds

    assert judge(control=40, data_plane=0)
    assert not judge(control=100_000, data_plane=0)
    assert not judge(control=100_000, data_plane=-100_000)
    assert not judge(control=0, data_plane=-64)


def test_the_overhead_benchmark_runs(forked: None, tmp_path: Path) -> None:
    done = subprocess.run(
        [
            *(sys.executable, ROOT / "benchmarks" / "overhead.py", "--json"),
            *("--jobs", "16", "--concurrency", "4", "--serial", "4"),
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=550,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert report["succeeded"] == report["jobs"] == 16
    assert report["sqlite_synchronous"] == "FULL"
    assert 0 < report["latency"]["overhead_median"] < report["latency"]["end_to_end_median"]
    assert all(name.startswith("ucx/") for name in report["transports"])
    assert [Growth(**entry) for entry in report["memory"]] == []  # too few jobs to judge
