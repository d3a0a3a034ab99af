"""Whether memory grows is told from what varies."""

from __future__ import annotations

import os
import random

from benchmarks.memory import Growth, MemoryLog


def judge(values: list[float]) -> Growth:
    log = MemoryLog({os.getpid(): "it"})
    log._samples[os.getpid()] = list(enumerate(values, start=300))
    (growth,) = log.growth(300)
    return growth


def test_noise_is_not_growth() -> None:
    chance = random.Random(0)
    growth = judge([100 + chance.gauss(0, 0.5) for _ in range(80)])
    assert not growth.beyond_noise
    assert growth.noise < 5


def test_a_leak_is_growth() -> None:
    chance = random.Random(0)
    # 70 samples of ten jobs each, 10 KiB leaked per job
    growth = judge([100 + 0.1 * index + chance.gauss(0, 0.5) for index in range(70)])
    assert growth.beyond_noise
    assert growth.growth > 4


def test_what_happens_before_all_is_warm_does_not_count() -> None:
    log = MemoryLog({os.getpid(): "it"})
    log._samples[os.getpid()] = [(jobs, min(jobs, 300.0)) for jobs in range(0, 1000, 10)]
    (growth,) = log.growth(300)
    assert not growth.beyond_noise
    assert log.growth(990) == []


def test_this_process_is_sampled() -> None:
    log = MemoryLog({})
    for jobs in range(300, 308):
        log.sample(jobs)
    mine = next(entry for entry in log.growth(300) if entry.process.startswith("client"))
    assert mine.resident > 10
