"""What the benchmarks' reports have in common."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


def environment() -> dict[str, Any]:
    """Return where something is measured."""
    return {
        "machine": platform.machine(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "cpus": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
    }


@contextmanager
def two_plots(path: Path) -> Iterator[tuple[Any, Any]]:
    """Yield two axes with one scale, to be drawn on; the file is written afterwards.

    The same figures give the same file.
    """
    import matplotlib as mpl

    mpl.use("svg")
    from matplotlib import pyplot as plt

    mpl.rcParams |= {"svg.hashsalt": "disagfusion", "svg.fonttype": "none"}
    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), sharey=True, layout="constrained")
    yield tuple(axes)
    for axis in axes:
        axis.grid(visible=True, alpha=0.3)
        axis.legend(fontsize="small")
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)
