"""When the steps of a stage service's start took place, as Unix times."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from disagfusion.telemetry.logging import get_logger

Step = Literal["started", "fetched", "listening", "loaded", "ready"]

_log = get_logger(__name__)


class Startup:
    """Notes each step once.

    Args:
        show: Is told a step and its time.
        report: Of the fetch of the weights, which was over before the process began; None for none.
    """

    def __init__(self, show: Callable[[Step, float], None], report: Path | None) -> None:
        self._show = show
        self._seen: set[Step] = set()
        self.reached("started", process_started())
        fetched = None if report is None else _finished(report)
        if fetched is not None:
            self.reached("fetched", fetched)

    def reached(self, step: Step, at: float | None = None) -> None:
        """Note a step; nothing happens where it was noted before.

        Args:
            step: Which.
            at: When; now by default.
        """
        if step not in self._seen:
            self._seen.add(step)
            self._show(step, time.time() if at is None else at)


def process_started() -> float:
    """Return when this process began."""
    # The 22nd field of proc(5)'s stat, of which the name in parentheses and two more are cut off.
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    since_boot = ticks / os.sysconf("SC_CLK_TCK")
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + since_boot


def _finished(report: Path) -> float | None:
    try:
        return float(json.loads(report.read_text())["finished"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.warning("report of the weights not read", path=str(report), problem=str(error))
        return None
