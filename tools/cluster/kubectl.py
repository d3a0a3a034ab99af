"""The cluster's API, through kubectl."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tools.cluster import commands, programs
from tools.cluster.errors import ClusterError


class Kubectl:
    """Runs kubectl.

    Args:
        kubeconfig: Access to the cluster.
        program: The kubectl to use.
    """

    def __init__(self, kubeconfig: Path, program: Path | None = None) -> None:
        self.kubeconfig = kubeconfig
        self.program = program or programs.need("kubectl")

    def __call__(self, *arguments: str, text: str | None = None, seconds: float = 120) -> str:
        """Run it and return its output.

        Args:
            arguments: What kubectl is told.
            text: Its standard input.
            seconds: How long it may take.

        Raises:
            ClusterError: It failed, with what it said.
        """
        access = f"--kubeconfig={self.kubeconfig}"
        return commands.run(self.program, access, *arguments, text=text, seconds=seconds)

    def succeeds(self, *arguments: str, seconds: float = 30) -> bool:
        """Tell whether kubectl ends with success."""
        try:
            self(*arguments, seconds=seconds)
        except ClusterError:
            return False
        return True

    def json(self, *arguments: str) -> dict[str, Any]:
        """Return what kubectl prints with `-o json`."""
        found: dict[str, Any] = json.loads(self(*arguments, "-o", "json"))
        return found

    def apply(self, objects: Sequence[dict[str, Any]], *arguments: str) -> str:
        """Apply objects, server-side."""
        document = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        return self("apply", "--server-side", *arguments, "-f", "-", text=json.dumps(document))
