"""Jobs: their states, the store that survives everything, results and their retention."""
