"""The runtime that all stage services share: receive ∥ compute ∥ send.

A stage service is two processes. The *front* has the gRPC port, the data plane, and the memory of
inputs and outputs; it imports no torch. The *engine* computes in the front's memory and may die
without taking anything along. `machine` is the front's behaviour without I/O.
"""
