"""A person's word that the ratio is to stay as it is: a file in the data directory.

It is there or it is not, so it outlives every process and needs none of them to answer.
"""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

HOLD_FILE = "hold.json"
"""Its name in the data directory."""

_LIMIT_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Hold:
    """Why the ratio is held.

    Attributes:
        by: Who wants it; empty where nobody said.
        why: For people; empty where nobody said.
        since: Unix seconds; None where nobody said.
    """

    by: str = ""
    why: str = ""
    since: float | None = None

    def __str__(self) -> str:
        text = f"held by {self.by}" if self.by else "held"
        return f"{text}: {self.why}" if self.why else text


def read_hold(file: Path) -> Hold | None:
    """Return the hold that a file says; None where there is no such file.

    What is in the file is for people. One that cannot be read holds as well: whoever wrote it
    wanted that.
    """
    try:
        with file.open("rb") as opened:
            given = json.loads(opened.read(_LIMIT_BYTES) or b"{}")
    except FileNotFoundError:
        return None
    except OSError as error:
        return Hold(why=f"{file} cannot be read: {error.strerror}")
    except (ValueError, RecursionError):
        return Hold(why=f"{file} holds no JSON")
    if not isinstance(given, dict):
        return Hold()
    since = given.get("since")
    if isinstance(since, bool) or not isinstance(since, int | float) or not math.isfinite(since):
        since = None
    return Hold(_text(given.get("by")), _text(given.get("why")), since)


def write_hold(file: Path, hold: Hold) -> None:
    """Hold the ratio.

    Raises:
        OSError: The file cannot be written.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        temporary.write_text(json.dumps(asdict(hold)) + "\n", encoding="utf-8")
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def _text(value: object) -> str:
    return " ".join(value.split()) if isinstance(value, str) else ""
