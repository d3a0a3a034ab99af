"""Prompts that ask for a digit in a colour, in several wordings."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from .pictures import COLOURS

DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOUR_NAMES = tuple(COLOURS)

TEMPLATES = (
    "a handwritten {digit} in {colour}",
    "a {colour} handwritten {digit}",
    "the digit {digit}, {colour}",
    "the number {digit} in {colour} ink",
    "{colour} {digit}",
    "{digit}, {colour}",
    "{digit} in {colour}",
    "a {colour} {digit} on white paper",
    "a picture of the number {digit} written in {colour}",
    "draw a {colour} {digit} by hand",
    "please write {digit} with a {colour} pen",
    "a small drawing of a {digit}, ink: {colour}",
)
"""The wordings the model is trained on."""

HELD_OUT_TEMPLATES = (
    "the {colour} number {digit}, written by hand",
    "please draw the digit {digit} in {colour} ink on paper",
)
"""Wordings kept from training, for the evaluation."""

DIGIT_ONLY_TEMPLATES = ("a handwritten {digit}", "the digit {digit}", "{digit}")
COLOUR_ONLY_TEMPLATES = ("a handwritten digit in {colour}", "a {colour} number", "{colour}")
FILLERS = (
    "nice", "big", "small", "beautiful", "of", "and", "this", "that", "very", "with", "my",
    "some", "our", "photo", "art", "style", "good", "bold", "thin", "on", "for", "me", "is",
)  # fmt: skip
"""Words without a meaning for the picture that may stand anywhere in a training prompt."""


@dataclass(frozen=True)
class Wish:
    """What a prompt asks for; None where it leaves the choice open."""

    digit: int | None
    colour: str | None


def word(template: str, wish: Wish, numeral: bool) -> str:
    """Return the prompt that a template gives for a wish, with "7" or with "seven"."""
    digit = ""
    if wish.digit is not None:
        digit = str(wish.digit) if numeral else DIGIT_WORDS[wish.digit]
    prompt = template.format(digit=digit, colour=wish.colour or "")
    return re.sub(r"\ba (?=orange|eight|8)", "an ", prompt)


def _disturb(prompt: str, rng: np.random.Generator) -> str:
    """Vary what should not matter: fillers, capitals, a full stop."""
    if rng.random() < 0.25:
        words = prompt.split(" ")
        for _ in range(rng.integers(1, 4)):
            words.insert(int(rng.integers(len(words) + 1)), str(rng.choice(FILLERS)))
        prompt = " ".join(words)
    case = rng.random()
    if case < 0.15:
        prompt = prompt[:1].upper() + prompt[1:]
    elif case < 0.2:
        prompt = prompt.title()
    return prompt + ("." if rng.random() < 0.1 else "")


def training_prompt(digit: int, colour: str, rng: np.random.Generator) -> tuple[str, Wish]:
    """Return a prompt for a picture, and what the prompt gives away about it.

    Nine in ten name both digit and colour; the others leave one or both open, so that the model
    has a sensible answer to an incomplete prompt.
    """
    kind = rng.random()
    wish = Wish(digit, colour)
    templates: tuple[str, ...] = TEMPLATES
    if kind < 0.04:
        wish, templates = Wish(digit, None), DIGIT_ONLY_TEMPLATES
    elif kind < 0.08:
        wish, templates = Wish(None, colour), COLOUR_ONLY_TEMPLATES
    elif kind < 0.10:
        wish, templates = Wish(None, None), ("", "a handwritten digit", "a picture")
    prompt = word(str(rng.choice(templates)), wish, numeral=bool(rng.random() < 0.4))
    return _disturb(prompt, rng), wish


def evaluation_prompts(count: int) -> list[tuple[str, Wish]]:
    """Return prompts that go evenly through digits and colours, half in held-out wordings."""
    rng = np.random.default_rng(1)
    chosen: list[tuple[str, Wish]] = []
    for index in range(count):
        row, digit = divmod(index, 10)
        lap, colour = divmod(row, len(COLOUR_NAMES))
        wish = Wish(digit, COLOUR_NAMES[colour])
        # From row to row and lap to lap the halves swap, so each digit gets both kinds of wording.
        templates = HELD_OUT_TEMPLATES if (index + row + lap) % 2 else TEMPLATES
        template = templates[rng.integers(len(templates))]
        chosen.append((word(template, wish, numeral=bool(rng.random() < 0.4)), wish))
    return chosen


def corpus() -> list[str]:
    """Return prompts in which every word of the templates occurs, for the tokenizers."""
    lines = [*TEMPLATES, *HELD_OUT_TEMPLATES, *DIGIT_ONLY_TEMPLATES, *COLOUR_ONLY_TEMPLATES]
    filled: list[str] = []
    for line in lines:
        for index in range(len(DIGIT_WORDS)):
            wish = Wish(index, COLOUR_NAMES[index % len(COLOUR_NAMES)])
            filled.extend(word(line, wish, numeral) for numeral in (False, True))
    return [*filled, *FILLERS, "a picture", "a handwritten digit"]
