"""Balancing in the cluster: how many replicas of each stage on each pool, and getting there.

`controller.Scaling` is the way in, `view` what it is told, `report` what it answers. Nothing in
here knows the API server but by `k8s.port.Cluster`.
"""
