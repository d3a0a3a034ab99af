"""A Kubernetes cluster on one machine, for tests and for trials.

See docs/development-cluster.md.
"""
