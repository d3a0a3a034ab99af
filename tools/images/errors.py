"""What goes wrong with images, in words for the person at the terminal."""

from __future__ import annotations


class ImageError(Exception):
    """An image cannot be built or read; the message says what is missing or failed."""
