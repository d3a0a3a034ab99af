"""The chart of this checkout, installed for a benchmark."""

from __future__ import annotations

from pathlib import Path

from disagfusion.version import __version__
from tools.cluster import commands, programs
from tools.cluster.kubectl import Kubectl

SYSTEM = "disagfusion-system"
"""The operator's namespace."""
_CHART = Path(__file__).resolve().parents[2] / "charts" / "disagfusion"
# More than Helm itself waits.
_SECONDS = 360


def install(kubectl: Kubectl, *values: str) -> None:
    """Install the chart or upgrade it, with the images of this version, and wait until it runs.

    Args:
        kubectl: The cluster.
        values: Of the chart, as `--set` takes them.

    Raises:
        ClusterError: Helm is not there or failed, with what it said.
    """
    commands.run(
        *(programs.need("helm"), "upgrade", "--install", "disagfusion", _CHART),
        *("-n", SYSTEM, "--create-namespace", "--wait"),
        *("--set", "images.registry=localhost", "--set", f"images.tag={__version__}"),
        *(word for value in values for word in ("--set", value)),
        seconds=_SECONDS,
        extra={"KUBECONFIG": str(kubectl.kubeconfig)},
    )
