"""Container images of all that runs in a cluster: see docs/images.md."""
