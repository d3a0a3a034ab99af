"""Everything gRPC: channels, servers, interceptors, API keys, health and the error table."""
