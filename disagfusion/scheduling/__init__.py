"""How many replicas of each stage run where: profiles, the exact plan, the balancer.

Everything here is pure: it knows no clock, no network, no process and no randomness.
"""
