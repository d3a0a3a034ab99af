"""Profiles as files, and the names of what is emulated from them."""

from __future__ import annotations

from pathlib import Path

from disagfusion.errors import InvalidArgumentError
from disagfusion.scheduling.document import parse
from disagfusion.scheduling.profile import Profile

PREFIX = "emulated"
"""What the names of emulated pipelines begin with: every metric has the pipeline's."""


def read_profile(path: Path) -> Profile:
    """Read a profile.

    Raises:
        InvalidArgumentError: The file cannot be read, or naming what is wrong in it.
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise InvalidArgumentError("profile", f"cannot read {path}: {reason}") from error
    return parse(Profile, text, name=path.name)


def check_pipeline(name: str) -> None:
    """Judge the name of an emulated pipeline.

    Raises:
        InvalidArgumentError: Metrics with that name could be taken for a real pipeline's.
    """
    if not name.startswith(PREFIX):
        raise InvalidArgumentError(
            "pipeline", f"{name} is emulated", expected=f"a name that begins with {PREFIX!r}"
        )
