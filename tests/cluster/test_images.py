"""The images that are built here, each run as in a pod. Builds what has not been built; as root."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tools.images import debian, wheels
from tools.images.builder import Builder, Options
from tools.images.catalog import Image, Variant, select
from tools.images.checks import problems
from tools.images.containers import opened
from tools.images.engines import Engine, choose
from tools.images.places import Places
from tools.images.sizes import saved

PLACES = Places()
BUILD_SECONDS = 1800
STAGES = ("encoder", "dit", "decoder", "flex")


@pytest.fixture(scope="module")
def engine() -> Engine:
    """What builds images here."""
    debian.install({"buildah": "buildah", "runc": "runc"}, print)
    return choose("buildah", PLACES)


@pytest.fixture(scope="module")
def built(engine: Engine) -> Callable[..., tuple[Image, ...]]:
    """Build images unless they are as they would be."""

    def build(*names: str) -> tuple[Image, ...]:
        images = select(names)
        Builder(engine, PLACES, Options(), print).build(images)
        return images

    return build


@pytest.mark.timeout(BUILD_SECONDS)
@pytest.mark.parametrize("name", ["gateway", "operator", "emulated"])
def test_a_small_image_keeps_its_rules(
    name: str, engine: Engine, built: Callable[..., tuple[Image, ...]]
) -> None:
    (image,) = built(name)
    with opened(engine, image.reference(wheels.version(PLACES), Variant.CUDA)) as runner:
        assert list(problems(image, runner, PLACES)) == []


@pytest.mark.timeout(BUILD_SECONDS)
@pytest.mark.parametrize("name", STAGES)
def test_a_stage_with_torch_keeps_its_rules(
    name: str, engine: Engine, built: Callable[..., tuple[Image, ...]]
) -> None:
    (image,) = (image for image in built(*STAGES) if image.name == name)
    with opened(engine, image.reference(wheels.version(PLACES), Variant.CUDA)) as runner:
        assert list(problems(image, runner, PLACES)) == []


@pytest.mark.timeout(BUILD_SECONDS)
def test_the_stages_share_all_but_our_own_code(built: Callable[..., tuple[Image, ...]]) -> None:
    version = wheels.version(PLACES)
    names = {i.reference(version, Variant.CUDA) for i in built(*STAGES)}
    first, *others = (image for image in saved(PLACES.output) if image.reference in names)
    assert len(others) == len(STAGES) - 1
    assert all(one.layers[:-1] == first.layers[:-1] for one in others)
    assert first.layers[-1].size < 100_000_000 < first.size
