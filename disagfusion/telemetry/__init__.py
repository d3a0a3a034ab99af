"""Metrics, logs and traces: every name in one place."""
