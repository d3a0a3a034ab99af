"""What people write in a DiffusionPipeline, and what the operator answers in its status."""
