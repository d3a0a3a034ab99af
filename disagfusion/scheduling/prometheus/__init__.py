"""Signals for the balancer in the words of Prometheus: what is asked, and what an answer means.

Nothing here asks anybody; `disagfusion.signals.prometheus` does.
"""
