"""Random planning problems, and their answers by trying everything."""
