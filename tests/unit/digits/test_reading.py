import numpy as np
import pytest
from digitkit.pictures import COLOURS, load_split, render_ink, render_variant, tint
from digitkit.reading import (
    cell_map,
    ink_colour,
    ink_map,
    nearest_distances,
    read_colour,
    real_cell_maps,
)
from PIL import Image


def picture_of(ink, colour):
    return Image.fromarray((tint(ink, colour) * 255).round().astype(np.uint8))


@pytest.fixture(scope="module")
def split():
    return load_split()


def test_split_is_fixed_and_disjoint(split):
    train, held_out = split
    assert len(train.labels) + len(held_out.labels) == 1797
    again, _ = load_split()
    assert np.array_equal(train.images, again.images)
    seen = {image.tobytes() for image in train.images}
    assert not any(image.tobytes() in seen for image in held_out.images)


def test_reader_knows_unseen_real_digits(reader):
    assert reader.held_out_accuracy >= 0.98


@pytest.mark.parametrize("colour", COLOURS)
def test_a_tinted_digit_is_read_like_the_real_one(split, reader, colour):
    _, held_out = split
    real = real_cell_maps(held_out)[:40]
    pictures = [picture_of(render_ink(image), colour) for image in held_out.images[:40]]
    seen = np.stack([cell_map(ink_map(picture)).ravel() for picture in pictures])
    assert np.abs(seen - real).max() < 0.5
    assert {read_colour(picture) for picture in pictures} == {colour}


def test_cell_map_restores_the_range_and_place_of_the_source():
    image = np.zeros((8, 8), dtype=np.float32)
    image[2:5, 3:6] = 1.0
    cells = cell_map(render_ink(image))
    assert cells.shape == (8, 8)
    assert cells[3, 4] == pytest.approx(16.0, abs=0.1)
    assert cells[0].max() < 0.1
    assert cells[:, 0].max() < 0.1


def test_a_faint_digit_counts_as_ink_but_not_as_a_colour(split):
    ink = render_ink(split[0].images[0])
    faint = picture_of(ink * 0.4, "red")
    assert np.abs(cell_map(ink_map(faint)) - cell_map(ink)).max() < 1.0
    assert read_colour(faint) == "none"


def test_blank_paper_has_no_ink_and_no_colour():
    blank = Image.new("RGB", (64, 64), "white")
    assert ink_map(blank).max() == 0.0
    assert ink_colour(blank) is None
    assert read_colour(blank) == "none"


def test_an_ink_outside_the_palette_has_no_name(split):
    ink = render_ink(split[0].images[0])[..., None]
    cyan = 1.0 - ink * np.array([1.0, 0.0, 0.0], dtype=np.float32)
    assert read_colour(Image.fromarray((cyan * 255).astype(np.uint8))) == "none"


def test_pictures_of_another_size_are_refused():
    with pytest.raises(ValueError, match="64×64"):
        ink_map(Image.new("RGB", (32, 64)))


def test_nearest_distance_is_zero_for_a_training_picture(split, reader):
    train, held_out = split
    known = real_cell_maps(train)[:5]
    assert np.allclose(nearest_distances(known, reader.examples), 0.0, atol=0.01)
    assert reader.held_out_distances.min() > 1.0
    assert len(reader.held_out_distances) == len(held_out.labels)


def test_variants_differ_from_each_other_and_stay_readable(split, reader):
    train, _ = split
    rng = np.random.default_rng(7)
    variants = [render_variant(train.images[3], rng) for _ in range(10)]
    assert np.abs(variants[0] - variants[1]).max() > 0.1
    seen = reader.read(np.stack([cell_map(ink).ravel() for ink in variants]))
    assert (seen == train.labels[3]).mean() >= 0.9
