"""Everything gRPC: channels, servers, interceptors, API keys, health and the error table."""

import os

# gRPC's core writes to standard error on its own, such as on every connection that a peer closes;
# what went wrong reaches callers as a status.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
