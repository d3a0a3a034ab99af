"""The API server: the port, and its adapter, the only code that knows the client library."""
