"""All cases by name."""

from __future__ import annotations

from .case import Case
from .image_cases import IMAGE_CASES
from .video_cases import VIDEO_CASES

CASES: dict[str, Case] = {case.name: case for case in [*IMAGE_CASES, *VIDEO_CASES]}

__all__ = ["CASES", "Case"]
