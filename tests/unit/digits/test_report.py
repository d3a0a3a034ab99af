import dataclasses
import json

import evaluate
import numpy as np
import pytest
from digitkit import report
from digitkit.pictures import COLOURS, load_split, render_ink, tint
from digitkit.prompts import COLOUR_NAMES, DIGIT_WORDS, TEMPLATES, Wish, evaluation_prompts
from PIL import Image

train, held_out = load_split()


def draw(image, colour):
    return Image.fromarray((tint(render_ink(image), colour) * 255).round().astype(np.uint8))


def source(digits, asked):
    """Pictures of real digits, a different one for each prompt."""
    used = dict.fromkeys(range(10), 0)
    for _, wish in asked:
        candidates = digits.images[digits.labels == wish.digit]
        yield draw(candidates[used[wish.digit] % len(candidates)], wish.colour)
        used[wish.digit] += 1


@pytest.fixture(scope="module")
def asked():
    return evaluation_prompts(120)


def test_unseen_real_digits_pass(reader, asked):
    result = report.judge(list(source(held_out, asked)), asked, reader, held_out)
    assert result.failures() == []
    assert result.colours_right == 1.0
    assert "passed" in result.table()


def test_a_lookup_of_training_pictures_fails(reader, asked):
    result = report.judge(list(source(train, asked)), asked, reader, held_out)
    assert result.nearest_training_minimum < 1.0
    assert result.copies > 0.9
    assert any("copies" in reason for reason in result.failures())


def test_one_picture_for_each_digit_fails(reader, asked):
    pictures = [
        draw(held_out.images[held_out.labels == wish.digit][0], wish.colour) for _, wish in asked
    ]
    result = report.judge(pictures, asked, reader, held_out)
    assert result.spread < 1.0
    assert any("spread" in reason for reason in result.failures())


def test_wrong_digits_and_colours_fail_and_are_listed(reader, asked):
    pictures = list(source(held_out, asked))
    pictures = pictures[1:] + pictures[:1]
    result = report.judge(pictures, asked, reader, held_out)
    assert result.digits_right < 0.5
    assert any("digits" in reason for reason in result.failures())
    assert asked[0][0] in result.mistakes[0]
    assert "FAILED" in result.table()


def test_one_wrong_colour_in_twenty_fails(reader, asked):
    pictures = list(source(held_out, asked))
    for index in range(0, len(pictures), 20):
        pictures[index] = draw(held_out.images[0], "black" if asked[index][1] else "red")
    wrong = [
        (prompt, dataclasses.replace(wish, colour="red" if i % 20 == 0 else wish.colour))
        for i, (prompt, wish) in enumerate(asked)
    ]
    result = report.judge(pictures, wrong, reader, held_out)
    assert any("colours" in reason for reason in result.failures())


def test_blank_pictures_fail(reader, asked):
    blank = [Image.new("RGB", (64, 64), "white")] * len(asked)
    assert len(report.judge(blank, asked, reader, held_out).failures()) >= 3


def test_evaluation_prompts_are_even_and_say_what_they_ask():
    asked = evaluation_prompts(240)
    counts = {}
    for prompt, wish in asked:
        counts[wish] = counts.get(wish, 0) + 1
        assert wish.colour in prompt
        assert str(wish.digit) in prompt or DIGIT_WORDS[wish.digit] in prompt
    assert set(counts) == {Wish(d, c) for d in range(10) for c in COLOUR_NAMES}
    assert set(counts.values()) == {4}
    assert len({prompt for prompt, _ in asked}) > 200


def test_half_of_the_evaluation_is_in_wordings_unknown_to_training():
    known = {
        template.format(digit=digit, colour=colour).replace("an ", "a ")
        for template in TEMPLATES
        for colour in COLOURS
        for digit in [*DIGIT_WORDS, *map(str, range(10))]
    }
    asked = evaluation_prompts(200)
    unknown = [prompt for prompt, _ in asked if prompt.replace("an ", "a ") not in known]
    assert len(unknown) == 100


@pytest.mark.parametrize(("digits", "status"), [(held_out, 0), (train, 1)])
def test_evaluate_prints_json_and_exits_by_the_verdict(
    digits, status, reader, monkeypatch, capsys, tmp_path
):
    pictures = source(digits, evaluation_prompts(60))

    class Source:
        def __enter__(self):
            return lambda prompt, seed: next(pictures)

        def __exit__(self, *args):
            return None

    monkeypatch.setattr(evaluate.DigitReader, "fit", lambda train, held_out: reader)
    monkeypatch.setattr(evaluate, "through_the_system", lambda address, steps: Source())
    sheet = tmp_path / "sheet.png"
    assert evaluate.main(["--prompts", "60", "--json", "--sheet", str(sheet)]) == status
    printed = json.loads(capsys.readouterr().out)
    assert printed["passed"] is (status == 0)
    assert printed["pictures"] == 60
    with Image.open(sheet) as image:
        assert image.width > 1000
