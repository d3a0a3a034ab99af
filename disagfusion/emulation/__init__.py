"""Accelerators that are not there: workers that take the time and memory that a profile says.

Processes, gRPC and the transport of tensors are real; what an engine computes is not. An emulated
worker loads for as long as the profile's weights take, computes for as long as the profile says for
a job of that shape, runs out of the profile's memory, and hands over as many bytes. It imports
neither torch nor diffusers. Everything it says of itself says "emulated".
"""
