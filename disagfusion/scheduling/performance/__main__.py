"""One fit in a process of its own: `python -m disagfusion.scheduling.performance`.

Reads a `FitRequest` from standard input and writes a `FitAnswer` to standard output, one JSON
document each. Where the request is wrong it writes a sentence to standard error and exits with 2.
"""

from __future__ import annotations

import sys

from disagfusion.errors import DisagfusionError
from disagfusion.scheduling.performance.documents import from_json, to_json
from disagfusion.scheduling.performance.exchange import FitRequest


def main() -> int:
    """Answer one request."""
    try:
        request = from_json(FitRequest, sys.stdin.buffer.read(), name="request")
        answer = request.answer()
    except DisagfusionError as error:
        print(error.message, file=sys.stderr)
        return 2
    print(to_json(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
