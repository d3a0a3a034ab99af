"""Resident memory of processes over time, and whether it grows."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import psutil

MEBIBYTE = 2**20


@dataclass(frozen=True)
class Growth:
    """How one process's resident memory changed, in MiB.

    Attributes:
        process: Its name.
        resident: At the end.
        growth: From the first to the last quarter of the samples, medians.
        noise: What the samples vary by around their medians: four times the larger of the two
            quarters' median absolute deviations, and at least 0.5 % of the memory or 1 MiB.
        beyond_noise: Whether it grew by more than that.
    """

    process: str
    resident: float
    growth: float
    noise: float
    beyond_noise: bool


class MemoryLog:
    """Samples the resident memory of this process and of all its descendants.

    Args:
        names: What to call processes, by id; others are called by their command.
    """

    def __init__(self, names: dict[int, str]) -> None:
        self._names = names
        self._samples: dict[int, list[tuple[int, float]]] = {}

    def sample(self, jobs: int) -> None:
        """Take a sample after so many jobs."""
        this = psutil.Process()
        for process in (this, *this.children(recursive=True)):
            try:
                resident = process.memory_info().rss / MEBIBYTE
                self._names.setdefault(process.pid, _name(process, this))
            except psutil.NoSuchProcess:
                continue
            self._samples.setdefault(process.pid, []).append((jobs, resident))

    def growth(self, after: int) -> list[Growth]:
        """Compare the first with the last quarter of the samples after so many jobs."""
        found = []
        for pid, samples in self._samples.items():
            values = [resident for jobs, resident in samples if jobs >= after]
            quarter = len(values) // 4
            if quarter:
                found.append(_growth(self._names[pid], values[:quarter], values[-quarter:]))
        return found


def _name(process: psutil.Process, this: psutil.Process) -> str:
    if process.pid == this.pid:
        return "client (this process)"
    return " ".join(process.cmdline()[1:4])[-40:] or process.name()


def _growth(name: str, first: list[float], last: list[float]) -> Growth:
    growth = statistics.median(last) - statistics.median(first)
    deviation = max(_deviation(first), _deviation(last))
    noise = max(4 * deviation, 0.005 * last[-1], 1.0)
    return Growth(name, last[-1], growth, noise, growth > noise)


def _deviation(values: list[float]) -> float:
    median = statistics.median(values)
    return statistics.median([abs(value - median) for value in values])
