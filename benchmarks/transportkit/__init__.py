"""What `benchmarks/transport.py` compares, one module for each kind of contender."""
