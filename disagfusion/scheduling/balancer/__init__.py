"""The balancer: how many replicas of each stage there should be now, and why."""
