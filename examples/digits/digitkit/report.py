"""What an evaluation measured, and whether that is good enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .pictures import Array, Digits
from .prompts import Wish
from .reading import (
    DigitReader,
    cell_map,
    ink_map,
    nearest_distances,
    read_colour,
    real_cell_maps,
)

DIGIT_BAR = 0.98
COLOUR_BAR = 0.98
COPY_SHARE_BAR = 0.05
"""Largest share of pictures that may be copies of training pictures."""
SPREAD_BAR = 0.5
"""Smallest spread of pictures of one digit, in relation to that of real digits."""


@dataclass(frozen=True)
class Report:
    """Measurements of one evaluation.

    Distances are Euclidean between cell maps (64 cells of 0–16 each). A picture is a *copy* when
    it is nearer to a training picture than 99 % of held-out real digits are. The *spread* is the
    median distance between two pictures of one digit.
    """

    pictures: int
    digits_right: float
    colours_right: float
    reader_accuracy_on_held_out: float
    nearest_training_median: float
    nearest_training_minimum: float
    held_out_nearest_median: float
    held_out_nearest_minimum: float
    copy_distance: float
    copies: float
    spread: float
    real_spread: float
    mistakes: tuple[str, ...]

    def failures(self) -> list[str]:
        """Return why the pictures are not good enough; empty when they are."""
        checks = [
            (self.digits_right >= DIGIT_BAR, f"digits read right below {DIGIT_BAR:.0%}"),
            (self.colours_right >= COLOUR_BAR, f"colours right below {COLOUR_BAR:.0%}"),
            (self.copies <= COPY_SHARE_BAR, f"more than {COPY_SHARE_BAR:.0%} copies"),
            (
                self.spread >= SPREAD_BAR * self.real_spread,
                f"spread below {SPREAD_BAR:.0%} of that of real digits",
            ),
        ]
        return [reason for passed, reason in checks if not passed]

    def as_dict(self) -> dict[str, object]:
        """Return the measurements and the verdict, ready for JSON."""
        failures = self.failures()
        return {**asdict(self), "passed": not failures, "failures": failures}

    def table(self) -> str:
        """Return the measurements for people."""
        rows = [
            ("pictures", f"{self.pictures}", ""),
            ("read as the digit asked for", f"{self.digits_right:.1%}", f"≥ {DIGIT_BAR:.0%}"),
            (
                "  the reader on held-out real digits",
                f"{self.reader_accuracy_on_held_out:.1%}",
                "",
            ),
            ("in the colour asked for", f"{self.colours_right:.1%}", f"≥ {COLOUR_BAR:.0%}"),
            (
                "distance to the nearest training picture",
                f"median {self.nearest_training_median:.1f}, "
                f"least {self.nearest_training_minimum:.1f}",
                "",
            ),
            (
                "  the same for held-out real digits",
                f"median {self.held_out_nearest_median:.1f}, "
                f"least {self.held_out_nearest_minimum:.1f}",
                "",
            ),
            (
                f"copies (nearer than {self.copy_distance:.1f})",
                f"{self.copies:.1%}",
                f"≤ {COPY_SHARE_BAR:.0%}",
            ),
            ("spread of pictures of one digit", f"{self.spread:.1f}", ""),
            ("  the same for real digits", f"{self.real_spread:.1f}", ""),
        ]
        lines = [f"{name:<42} {value:<26} {bar}".rstrip() for name, value, bar in rows]
        lines += [f"  mistake: {mistake}" for mistake in self.mistakes]
        failures = self.failures()
        lines.append("FAILED: " + "; ".join(failures) if failures else "passed")
        return "\n".join(lines)


def spread(cells: Array, digits: NDArray[np.int64]) -> float:
    """Return the median distance between two different cell maps (count, 64) of one digit."""
    distances: list[float] = []
    for digit in np.unique(digits):
        group = cells[digits == digit].astype(np.float64)
        rows, columns = np.triu_indices(len(group), k=1)
        distances.extend(np.linalg.norm(group[rows] - group[columns], axis=1).tolist())
    return float(np.median(distances)) if distances else 0.0


def judge(
    pictures: Sequence[Image.Image],
    asked: Sequence[tuple[str, Wish]],
    reader: DigitReader,
    held_out: Digits,
) -> Report:
    """Read the pictures and compare them with what was asked for.

    Args:
        pictures: 64×64, one for each prompt.
        asked: prompts with the digit and colour that each names.
        reader: the classifier, with the training pictures it knows.
        held_out: real digits that neither model nor classifier has seen.
    """
    cells = np.stack([cell_map(ink_map(picture)).ravel() for picture in pictures])
    digits = np.array([wish.digit for _, wish in asked], dtype=np.int64)
    seen_digits = reader.read(cells)
    seen_colours = [read_colour(picture) for picture in pictures]
    mistakes = tuple(
        f"“{prompt}” reads as {digit} in {colour}"
        for (prompt, wish), digit, colour in zip(asked, seen_digits, seen_colours, strict=True)
        if digit != wish.digit or colour != wish.colour
    )
    nearest = nearest_distances(cells, reader.examples)
    copy_distance = float(np.quantile(reader.held_out_distances, 0.01))
    return Report(
        pictures=len(pictures),
        digits_right=float((seen_digits == digits).mean()),
        colours_right=float(
            np.mean([c == w.colour for c, (_, w) in zip(seen_colours, asked, strict=True)])
        ),
        reader_accuracy_on_held_out=reader.held_out_accuracy,
        nearest_training_median=float(np.median(nearest)),
        nearest_training_minimum=float(nearest.min()),
        held_out_nearest_median=float(np.median(reader.held_out_distances)),
        held_out_nearest_minimum=float(reader.held_out_distances.min()),
        copy_distance=copy_distance,
        copies=float((nearest < copy_distance).mean()),
        spread=spread(cells, digits),
        real_spread=spread(real_cell_maps(held_out), held_out.labels),
        mistakes=mistakes,
    )
