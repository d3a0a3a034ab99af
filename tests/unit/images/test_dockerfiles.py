"""The rules that every Dockerfile keeps."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tools.images.catalog import IMAGES, Image

ROOT = Path(__file__).resolve().parents[3]
DOCKERFILES = ROOT / "Dockerfiles"
ALL = sorted(path.name for path in DOCKERFILES.glob("*.Dockerfile"))
LABELS = {"title", "description", "version", "licenses"}


def instructions(name: str) -> list[tuple[str, str]]:
    """Return a Dockerfile's instructions and their arguments, continuation lines joined."""
    lines = (DOCKERFILES / name).read_text().splitlines()
    text = "\n".join(line for line in lines if not line.startswith("#")).replace("\\\n", " ")
    found = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    return [(word, re.sub(r"\s+", " ", rest).strip()) for word, rest in found]


def last_stage(name: str) -> list[tuple[str, str]]:
    found = instructions(name)
    start = max(i for i, (word, _) in enumerate(found) if word == "FROM")
    return found[start:]


def values(found: list[tuple[str, str]], word: str) -> list[str]:
    return [rest for name, rest in found if name == word]


def test_there_is_one_for_every_image() -> None:
    assert {image.dockerfile for image in IMAGES} | {
        "debian.Dockerfile",
        "dependencies.Dockerfile",
    } == set(ALL)


@pytest.mark.parametrize("name", ALL)
def test_the_base_is_an_argument_and_never_the_latest(name: str) -> None:
    bases = [rest.split()[0] for rest in values(instructions(name), "FROM")]
    assert set(bases) <= {"${BASE}", "scratch"}
    if "${BASE}" in bases:
        assert instructions(name)[0] == ("ARG", "BASE") or instructions(name)[0][1].startswith(
            "BASE="
        )
    assert "latest" not in (DOCKERFILES / name).read_text()


def test_the_default_base_is_pinned_to_a_patch_release() -> None:
    word, base = instructions("dependencies.Dockerfile")[0]
    assert word == "ARG"
    assert re.fullmatch(r"BASE=[\w./-]+:3\.11\.\d+-slim-bookworm", base)


@pytest.mark.parametrize("name", [name for name in ALL if name != "debian.Dockerfile"])
def test_the_process_is_not_root_and_its_number_says_so(name: str) -> None:
    assert values(last_stage(name), "USER")[-1] == "65532:65532"


@pytest.mark.parametrize("name", ALL)
def test_nothing_is_fetched_without_a_hash_and_nothing_is_secret(name: str) -> None:
    text = (DOCKERFILES / name).read_text()
    for word, rest in instructions(name):
        if word == "RUN" and "pip install" in rest:
            assert "--require-hashes" in rest
        if word == "ADD":
            assert "://" not in rest
    assert not re.search(r"https?://|token|password|secret|credential", text, re.IGNORECASE)


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_an_image_starts_its_module_without_a_shell(image: Image) -> None:
    (entry,) = values(last_stage(image.dockerfile), "ENTRYPOINT")
    module = "" if image.name in ("emulated", "flex") else f', "disagfusion_{image.name}"'
    assert entry == f'["/opt/disagfusion/bin/python", "-m"{module}]'
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    packages = {path.rpartition("/")[2] for path in wheel["targets"]["wheel"]["packages"]}
    started = module.strip(', "') or values(last_stage(image.dockerfile), "CMD")[0].strip('[]"')
    assert started in packages


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_an_image_says_what_it_is(image: Image) -> None:
    (labels,) = values(last_stage(image.dockerfile), "LABEL")
    found = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', labels))
    assert set(found) == LABELS
    assert found["title"] == image.repository
    assert found["version"] == "${VERSION}"
    assert found["licenses"] == "Apache-2.0"


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_an_image_takes_from_its_build_only_what_is_installed(image: Image) -> None:
    stage = last_stage(image.dockerfile)
    assert values(stage, "RUN") == []
    (copied,) = values(stage, "COPY")
    assert copied == "--from=code /code /opt/disagfusion/lib/python3.11/site-packages"


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image.name)
def test_every_image_has_a_lock(image: Image) -> None:
    assert (ROOT / "requirements" / f"{image.lock}.txt").exists()
    assert f"requirements/{image.lock}.txt" in (DOCKERFILES / image.dockerfile).read_text()
