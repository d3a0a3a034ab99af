"""Real handwritten digits as smooth coloured pictures.

The source is scikit-learn's ``load_digits``: 1,797 digits of 8×8 pixels with 17 grey levels (the
test set of "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, 1998, UCI
Machine Learning Repository, CC BY 4.0). A digit gets a margin of one source pixel, is enlarged
with cubic splines and drawn as ink of one colour on white paper.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SIZE = 64
"""Height and width of a picture in pixels."""
SOURCE_SIZE = 8
MARGIN = 1
CELLS = SOURCE_SIZE + 2 * MARGIN

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 40, 40),
    "orange": (245, 130, 20),
    "green": (30, 150, 60),
    "blue": (30, 80, 210),
    "purple": (130, 50, 170),
    "black": (35, 35, 35),
}
"""The inks: name to 8-bit sRGB."""

# Below the first level paper stays white, above the second ink is solid: edges become crisp
# where plain interpolation of 8×8 pixels would leave a blur.
PAPER_LEVEL, INK_LEVEL = 0.2, 0.8

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Digits:
    """Source digits: ``images`` (count, 8, 8) in 0–1, ``labels`` (count,)."""

    images: Array
    labels: NDArray[np.int64]


def load_split() -> tuple[Digits, Digits]:
    """Return the real digits as a training part (80 %) and a held-out part, always the same."""
    bunch = load_digits()
    images = (bunch.images / 16.0).astype(np.float32)
    labels = bunch.target.astype(np.int64)
    parts = train_test_split(images, labels, test_size=0.2, random_state=0, stratify=labels)
    return Digits(parts[0], parts[2]), Digits(parts[1], parts[3])


def _grid(matrix: NDArray[np.float64], shift: NDArray[np.float64]) -> NDArray[np.float64]:
    """Source coordinates (2, SIZE, SIZE) of each pixel centre under an affine change."""
    axis = (np.arange(SIZE) + 0.5) * CELLS / SIZE - CELLS / 2
    points = np.stack(np.meshgrid(axis, axis, indexing="ij")).reshape(2, -1)
    moved = matrix @ points + shift[:, None] + (CELLS - 1) / 2
    return moved.reshape(2, SIZE, SIZE)


def render_ink(
    image: Array,
    matrix: NDArray[np.float64] | None = None,
    shift: NDArray[np.float64] | None = None,
) -> Array:
    """Enlarge one 8×8 digit to a smooth map of ink.

    Args:
        image: (8, 8) in 0–1.
        matrix: 2×2 affine change about the middle (rows, columns); none by default.
        shift: translation in source pixels; none by default.

    Returns:
        (64, 64) in 0–1: 0 is bare paper, 1 is solid ink.
    """
    padded = np.pad(image.astype(np.float64), MARGIN)
    grid = _grid(np.eye(2) if matrix is None else matrix, np.zeros(2) if shift is None else shift)
    level = ndimage.map_coordinates(padded, grid, order=3, mode="constant")
    step = np.clip((level - PAPER_LEVEL) / (INK_LEVEL - PAPER_LEVEL), 0.0, 1.0)
    return (step * step * (3.0 - 2.0 * step)).astype(np.float32)


def render_variant(image: Array, rng: np.random.Generator) -> Array:
    """Render a digit slightly turned, slanted, scaled and moved, as another hand might do."""
    turn = np.deg2rad(rng.uniform(-6.0, 6.0))
    slant = rng.uniform(-0.06, 0.06)
    scale = rng.uniform(0.96, 1.05)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    matrix = scale * rotation @ np.array([[1.0, 0.0], [slant, 1.0]])
    return render_ink(image, matrix, rng.uniform(-0.25, 0.25, size=2))


def tint(ink: Array, colour: str) -> Array:
    """Draw maps of ink (..., 64, 64) in a colour on white: (..., 64, 64, 3) in 0–1."""
    absorbed = 1.0 - np.asarray(COLOURS[colour], dtype=np.float32) / 255.0
    return (1.0 - ink[..., None] * absorbed).astype(np.float32)
