"""What docker, podman and buildah are told, with programs that write it down."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.images.engines import Build, BuildahEngine, ClientEngine, choose
from tools.images.errors import ImageError
from tools.images.places import Places

SCRIPT = """#!/bin/sh
echo "$0 $*" >> {log}
case "$*" in {cases} esac
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


@pytest.fixture
def program(
    tmp_path: Path, log: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str, str], None]:
    """Put a program on the path, which is otherwise empty."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))

    def put(name: str, cases: str = "") -> None:
        path = directory / name
        path.write_text(SCRIPT.format(log=log, cases=cases))
        path.chmod(0o755)

    return put


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places(root=tmp_path, output=tmp_path / "out")


def told(log: Path) -> list[str]:
    return [line.partition("/bin/")[2] for line in log.read_text().splitlines()]


BUILD = Build(
    Path("/d/dit.Dockerfile"),
    Path("/c"),
    "localhost/dit:1",
    {"VERSION": "1", "BASE": "b"},
    {"l": "v"},
)
OPTIONS = (
    "--file /d/dit.Dockerfile --tag localhost/dit:1 --build-arg BASE=b --build-arg VERSION=1 "
    "--label l=v /c"
)


@pytest.mark.parametrize(("name", "cache"), [("docker", ""), ("podman", "--layers=false ")])
def test_docker_and_podman_build(
    name: str, cache: str, program: Callable[[str, str], None], log: Path
) -> None:
    program(name, "")
    ClientEngine(name).build(BUILD)
    assert told(log) == [f"{name} build --quiet {cache}{OPTIONS}"]


def test_buildah_builds_in_a_storage_of_its_own(
    program: Callable[[str, str], None], log: Path, places: Places
) -> None:
    program("buildah", "")
    BuildahEngine(places).build(BUILD)
    (line,) = told(log)
    storage = places.storage
    assert f"--root {storage}/root --runroot {storage}/run build" in line
    assert line.endswith(f"--layers=false --force-rm {OPTIONS}")


def test_buildah_finds_an_image_by_its_name(
    program: Callable[[str, str], None], places: Places
) -> None:
    listed = json.dumps([{"id": "1", "names": ["localhost/a:1"]}, {"id": "2", "names": None}])
    program("buildah", f"*images*) echo '{listed}';;")
    engine = BuildahEngine(places)
    assert engine.find("localhost/a:1") == "1"
    assert engine.find("localhost/a:2") == ""
    assert engine.references() == ("localhost/a:1",)


@pytest.mark.parametrize(
    ("text", "size"), [("157 MB", 157_000_000), ("5.21 GB", 5_210_000_000), ("12 B", 12)]
)
def test_buildahs_sizes(
    text: str, size: int, program: Callable[[str, str], None], places: Places
) -> None:
    listed = json.dumps([{"id": "1", "names": ["localhost/a:1"], "size": text}])
    program("buildah", f"*images*) echo '{listed}';;")
    assert BuildahEngine(places).size("localhost/a:1") == size


def test_buildah_without_any_image(program: Callable[[str, str], None], places: Places) -> None:
    program("buildah", "")
    assert BuildahEngine(places).find("localhost/a:1") == ""


def test_an_image_that_is_not_there(program: Callable[[str, str], None]) -> None:
    program("docker", "*inspect*) exit 1;;")
    assert ClientEngine("docker").find("localhost/a:1") == ""


def test_a_failure_shows_the_end_of_what_was_written(
    program: Callable[[str, str], None],
) -> None:
    program("docker", "*) echo no space left >&2; exit 3;;")
    with pytest.raises(ImageError, match=r"docker failed with status 3:\nno space left"):
        ClientEngine("docker").build(BUILD)


def test_docker_without_its_daemon_is_passed_over(
    program: Callable[[str, str], None], places: Places
) -> None:
    program("docker", "info) exit 1;;")
    program("podman", "")
    assert choose("auto", places).name == "podman"
    with pytest.raises(ImageError, match="docker does not work here: `docker info` says why"):
        choose("docker", places)


def test_buildah_needs_root(
    program: Callable[[str, str], None], places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("buildah", "")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert choose("auto", places).name == "buildah"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ImageError, match="none of docker, podman, buildah works here"):
        choose("auto", places)
