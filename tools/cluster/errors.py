"""What goes wrong with the cluster, in words for the person at the terminal."""

from __future__ import annotations


class ClusterError(Exception):
    """The cluster cannot do what was asked; the message says what is missing or failed."""
