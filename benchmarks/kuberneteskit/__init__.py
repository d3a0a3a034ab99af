"""What the benchmarks on Kubernetes have in common."""
