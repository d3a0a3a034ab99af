"""What should be there: pure functions from a pipeline to the objects that make it up."""
