"""All builders by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import flux, images, videos

BUILDERS: dict[str, Callable[[], Any]] = {
    name: getattr(module, name) for module in (flux, images, videos) for name in module.__all__
}
