"""Start UCX and print its version and the transports that it finds here, in one line."""

from __future__ import annotations

from disagfusion.transport.backends.ucx import context_transports
from disagfusion.transport.backends.ucx_native import library


def main() -> None:
    """Print."""
    api = library()
    version = ".".join(map(str, api.get_ucx_version()))
    print(version, *context_transports(api.UCXContext({})))


if __name__ == "__main__":
    main()
