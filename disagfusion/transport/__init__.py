"""Tensors from peer to peer: sans-I/O core, backends ucx, tcp and inproc."""
