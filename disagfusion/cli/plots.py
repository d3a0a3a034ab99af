"""Pictures of a simulation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from disagfusion.errors import FailedPreconditionError

if TYPE_CHECKING:
    from disagfusion.simulation.result import Result
    from disagfusion.simulation.workload import Workload


def draw(result: Result, workload: Workload, path: Path) -> None:
    """Draw replicas, queues and latency over time.

    Raises:
        FailedPreconditionError: matplotlib is not installed, or the file cannot be written.
    """
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise FailedPreconditionError("--plot needs matplotlib: pip install matplotlib") from error
    mpl.use("Agg")
    from matplotlib import pyplot

    times = [sample.at for sample in result.samples]
    stages = list(result.replica_seconds)
    figure, axes = pyplot.subplots(3, 1, sharex=True, figsize=(9, 7), layout="constrained")
    for stage in stages:
        axes[0].step(times, [s.replicas[stage] for s in result.samples], where="post", label=stage)
        axes[1].plot(times, [s.waiting[stage] for s in result.samples], label=stage)
    axes[2].plot(result.finishes, result.latencies, ".", markersize=3, color="black")
    for decision in result.decisions:
        if decision.moves:
            for axis in axes:
                axis.axvline(decision.at, color="grey", linewidth=0.6, linestyle=":")
    axes[0].set_ylabel("replicas at work")
    axes[1].set_ylabel("jobs that wait")
    axes[2].set_ylabel("latency, s, by end")
    axes[2].set_xlabel("seconds, simulated")
    axes[0].legend(loc="upper right", ncols=len(stages))
    axes[0].set_title(f"{workload.name or 'workload'}: {result.policy}")
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise FailedPreconditionError(f"--plot: {path}: {error}") from error
    finally:
        pyplot.close(figure)
