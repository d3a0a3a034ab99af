"""Network policies are enforced by a process of the machine for all real nodes."""

from __future__ import annotations

import sys

from tools.cluster import commands, network, programs
from tools.cluster.addresses import Addresses
from tools.cluster.layout import ROOT, Layout
from tools.cluster.policy_rules import TABLE
from tools.cluster.processes import Processes, wait_for

PROGRAM = "network-policies"
_START_SECONDS = 60


def start(layout: Layout, addresses: Addresses, processes: Processes) -> None:
    """Start the agent and wait until every node has its rules.

    Raises:
        ClusterError: It ended, or a node gets none.
    """
    names = [node.name for node in addresses.nodes]
    command = [sys.executable, "-m", "tools.cluster.policy_agent"]
    command += [addresses.api_url, str(layout.pki), *names]
    processes.start(PROGRAM, command, {**commands.environment(), "PYTHONPATH": str(ROOT)})
    nft = programs.system("nft")
    for node in addresses.nodes:
        shown = [*network.inside(node), nft, "list", "table", "inet", TABLE]
        wait_for(
            f"network policies of {node.name}",
            _START_SECONDS,
            lambda shown=shown: commands.succeeds(*shown),  # type: ignore[misc]
            processes.why_not(PROGRAM),
        )
