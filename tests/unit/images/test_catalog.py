"""The names of images."""

from __future__ import annotations

import pytest

from tools.images.catalog import IMAGES, Variant, dependencies_reference, select
from tools.images.errors import ImageError


def test_all_where_none_is_named() -> None:
    assert select([]) == IMAGES


def test_selected_in_the_order_of_the_catalog() -> None:
    assert [image.name for image in select(["dit", "gateway", "dit"])] == ["gateway", "dit"]


def test_an_unknown_name_says_which_there_are() -> None:
    with pytest.raises(ImageError, match="called dits: expected decoder, dit, emulated, encoder"):
        select(["dit", "dits"])


@pytest.mark.parametrize(
    ("name", "variant", "reference", "lock", "archive"),
    [
        ("dit", "cuda", "disagfusion-dit:1.2.3", "stage", "disagfusion-stages.tar"),
        ("dit", "cpu", "disagfusion-dit:1.2.3-cpu", "stage-cpu", "disagfusion-stages-cpu.tar"),
        ("gateway", "cpu", "disagfusion-gateway:1.2.3", "gateway", "disagfusion-gateway.tar"),
    ],
)
def test_variants_are_told_apart_where_there_is_torch(
    name: str, variant: str, reference: str, lock: str, archive: str
) -> None:
    (image,) = select([name])
    chosen = Variant(variant)
    assert image.reference("1.2.3", chosen) == f"localhost/{reference}"
    assert image.lock_of(chosen) == lock
    assert image.archive_of(chosen) == archive


def test_all_stages_share_packages_and_archive() -> None:
    stages = [image for image in IMAGES if image.has_variants]
    assert [image.name for image in stages] == ["encoder", "dit", "decoder", "flex"]
    assert len({(image.lock, image.archive) for image in stages}) == 1


def test_packages_are_named_after_what_they_are_made_of() -> None:
    found = dependencies_reference("gateway", "0123456789abcdef")
    assert found == "localhost/disagfusion-gateway-dependencies:0123456789ab"
