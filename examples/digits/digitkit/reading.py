"""Reading pictures: which digit, which colour, and how near to a picture of the training set.

A reader sees a picture, real or generated, as a *cell map*: the ink on it, averaged over the 8×8
cells of the source digits, 0 (bare paper) to 16 (solid ink), the range of the source data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.svm import SVC

from .pictures import (
    CELLS,
    COLOURS,
    MARGIN,
    SIZE,
    SOURCE_SIZE,
    Array,
    Digits,
    render_ink,
    render_variant,
)

VARIANTS = 3
"""Slightly turned and slanted renderings of each real digit that the classifier also sees."""

MAXIMAL_COLOUR_DISTANCE = 60.0
"""Further than this from every ink of the palette (8-bit RGB, Euclidean) a picture has none."""
FAINTEST_INK = 0.15


def ink_map(picture: Image.Image) -> Array:
    """Return how much ink lies on each pixel, whatever its colour.

    Ink is what is missing from white in the channel where most is missing, in relation to the
    picture's strongest ink, so that a light ink counts as much as a dark one.

    Returns:
        (64, 64) in 0–1; all zero for a picture without ink.
    """
    if picture.size != (SIZE, SIZE):
        raise ValueError(f"expected a picture of {SIZE}×{SIZE} pixels, not {picture.size}")
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255.0
    absorbed = 1.0 - pixels.min(axis=2)
    strongest = float(np.quantile(absorbed, 0.98))
    if strongest < FAINTEST_INK:
        return np.zeros((SIZE, SIZE), dtype=np.float32)
    return np.clip(absorbed / strongest, 0.0, 1.0).astype(np.float32)


def cell_map(ink: Array) -> Array:
    """Average a map of ink (64, 64) in 0–1 over the source's cells: (8, 8) in 0–16."""
    pixels_per_cell = SIZE / CELLS
    low, high = MARGIN * pixels_per_cell, (MARGIN + SOURCE_SIZE) * pixels_per_cell
    small = Image.fromarray(ink, mode="F").resize(
        (SOURCE_SIZE, SOURCE_SIZE), Image.Resampling.BOX, box=(low, low, high, high)
    )
    return np.asarray(small, dtype=np.float32) * 16.0


def ink_colour(picture: Image.Image) -> tuple[float, float, float] | None:
    """Return the mean 8-bit RGB of the solid parts of the ink, or None where there is no ink."""
    ink = ink_map(picture)
    solid = ink > 0.85
    if not solid.any():
        return None
    pixels = np.asarray(picture.convert("RGB"), dtype=np.float64)
    red, green, blue = pixels[solid].mean(axis=0)
    return float(red), float(green), float(blue)


def read_colour(picture: Image.Image) -> str:
    """Return the palette's name for a picture's ink, or "none" where no ink is near enough."""
    seen = ink_colour(picture)
    if seen is None:
        return "none"
    distances = {
        name: float(np.linalg.norm(np.subtract(seen, rgb))) for name, rgb in COLOURS.items()
    }
    nearest = min(distances, key=distances.__getitem__)
    return nearest if distances[nearest] <= MAXIMAL_COLOUR_DISTANCE else "none"


def real_cell_maps(digits: Digits) -> Array:
    """Return the cell maps (count, 64) of real digits, drawn as pictures first."""
    return np.stack([cell_map(render_ink(image)).ravel() for image in digits.images])


@dataclass(frozen=True)
class DigitReader:
    """A classifier of cell maps, fitted to real digits only."""

    classifier: SVC
    examples: Array
    held_out_accuracy: float
    held_out_distances: NDArray[np.float64]

    @classmethod
    def fit(cls, train: Digits, held_out: Digits) -> DigitReader:
        """Fit a support vector classifier to ``train``; measure it on ``held_out``."""
        rng = np.random.default_rng(0)
        examples = real_cell_maps(train)
        variants = [
            cell_map(render_variant(image, rng)).ravel()
            for _ in range(VARIANTS)
            for image in train.images
        ]
        classifier = SVC(kernel="rbf", C=3.0, gamma="scale").fit(
            np.concatenate([examples, np.stack(variants)]), np.tile(train.labels, VARIANTS + 1)
        )
        unseen = real_cell_maps(held_out)
        accuracy = float(classifier.score(unseen, held_out.labels))
        return cls(classifier, examples, accuracy, nearest_distances(unseen, examples))

    def read(self, cells: Array) -> NDArray[np.int64]:
        """Return the digit seen in each of the cell maps (count, 64)."""
        digits: NDArray[np.int64] = self.classifier.predict(cells)
        return digits


def nearest_distances(cells: Array, examples: Array) -> NDArray[np.float64]:
    """Return for each cell map (count, 64) the Euclidean distance to the nearest example."""
    squares = (
        (cells.astype(np.float64) ** 2).sum(1)[:, None]
        + (examples.astype(np.float64) ** 2).sum(1)[None]
        - 2.0 * cells.astype(np.float64) @ examples.T.astype(np.float64)
    )
    return np.sqrt(np.clip(squares.min(axis=1), 0.0, None))
