"""Parts of the headline's benchmarks."""
