"""Stage services without tensors, and gateways to serve them."""
