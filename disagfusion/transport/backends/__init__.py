"""What carries messages: the backends and what they share."""
