"""What is built when, with an engine that only remembers."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tools.images import debian, wheels
from tools.images.builder import Builder, Options, install_options
from tools.images.catalog import Variant, select
from tools.images.engines import Build, Engine
from tools.images.errors import ImageError
from tools.images.places import Places

BASE = "docker.io/library/python:3.11.0-slim"
FETCHED = "--no-index --find-links /mnt/wheels"


class PlayedEngine(Engine):
    """Remembers what it is told."""

    name = "played"

    def __init__(self) -> None:
        self.images = {BASE: "base"}
        self.builds: list[Build] = []
        self.contexts: dict[str, set[str]] = {}
        self.saved: list[tuple[str, ...]] = []
        self.pulled: list[str] = []
        self.removed: list[str] = []
        self.pruned = False
        self.reachable = False
        self._ids = itertools.count()

    def build(self, build: Build) -> None:
        self.builds.append(build)
        self.images[build.reference] = f"id-{next(self._ids)}"
        files = (path for path in build.context.rglob("*") if path.is_file())
        found = {path.relative_to(build.context).as_posix() for path in files}
        self.contexts[build.reference] = found

    def find(self, reference: str) -> str:
        return self.images.get(reference, "")

    def size(self, reference: str) -> int:
        return len(reference)

    def prune(self) -> None:
        self.pruned = True

    def references(self) -> tuple[str, ...]:
        return tuple(self.images)

    def remove(self, reference: str) -> None:
        self.removed.append(reference)
        self.images.pop(reference, None)

    def pull(self, reference: str, seconds: float) -> None:
        self.pulled.append(reference)
        if not self.reachable:
            raise ImageError("played pull failed:\nno such host")
        self.images[reference] = "pulled"

    def save(self, references: Sequence[str], path: Path) -> None:
        self.saved.append(tuple(references))
        path.write_bytes(b"archive")

    @property
    def built(self) -> list[str]:
        names = [build.reference.removeprefix("localhost/disagfusion-") for build in self.builds]
        return [name.partition(":")[0] for name in names]


@pytest.fixture
def engine() -> PlayedEngine:
    return PlayedEngine()


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """A checkout with as little in it as will do."""
    root = tmp_path / "checkout"
    for name in ("Dockerfiles", "requirements", "disagfusion"):
        (root / name).mkdir(parents=True)
    (root / "disagfusion" / "version.py").write_text('__version__ = "1.2.3"\n')
    (root / "Dockerfiles" / "dependencies.Dockerfile").write_text(f"ARG BASE={BASE}\n")
    for name in ("reduce.py", "debian.Dockerfile"):
        (root / "Dockerfiles" / name).write_text(name)
    for image in select([]):
        (root / "Dockerfiles" / image.dockerfile).write_text(f"FROM {image.name}\n")
        (root / "requirements" / f"{image.lock}.txt").write_text(f"{image.lock}==1\n")
    (root / "requirements" / "bootstrap.txt").write_text("uv==1\n")
    found = Places(root=root, output=root / ".cluster" / "images")

    def build_wheel(places: Places) -> Path:
        places.dist.mkdir(parents=True, exist_ok=True)
        wheel = places.dist / "disagfusion-1.2.3-py3-none-any.whl"
        wheel.write_text((places.root / "disagfusion" / "version.py").read_text())
        return wheel

    def fetch(lock: Path, places: Places, index: str = "") -> Path:
        directory = places.wheels / lock.stem
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{lock.stem}-1.whl").write_text(index)
        return directory

    monkeypatch.setattr(wheels, "build_wheel", build_wheel)
    monkeypatch.setattr(wheels, "fetch", fetch)
    monkeypatch.setattr(wheels, "revision", lambda places: "c0ffee")
    return found


@pytest.fixture
def build(places: Places, engine: PlayedEngine) -> Callable[..., list[str]]:
    """Build some images; return what was built and what was said."""

    def run(*names: str, options: Options | None = None) -> list[str]:
        engine.builds.clear()
        engine.saved.clear()
        said: list[str] = []
        Builder(engine, places, options or Options(), said.append).build(select(names))
        return said

    return run


def test_packages_come_first_and_once_for_all_stages(
    build: Callable[..., list[str]], engine: PlayedEngine
) -> None:
    build("gateway", "encoder", "dit", "decoder")
    assert engine.built == [
        *("gateway-dependencies", "gateway", "stage-dependencies", "encoder", "dit", "decoder"),
    ]
    stage = engine.builds[2].reference
    assert {build.arguments["BASE"] for build in engine.builds[3:]} == {stage}
    assert engine.saved == [
        ("localhost/disagfusion-gateway:1.2.3",),
        tuple(f"localhost/disagfusion-{name}:1.2.3" for name in ("decoder", "dit", "encoder")),
    ]


def test_a_build_is_given_only_what_it_needs(
    build: Callable[..., list[str]], engine: PlayedEngine
) -> None:
    build("gateway")
    packages, gateway = engine.builds
    assert engine.contexts[packages.reference] == {
        *("requirements/gateway.txt", "requirements/bootstrap.txt", "Dockerfiles/reduce.py"),
        *("wheels/gateway-1.whl", "wheels/bootstrap-1.whl"),
    }
    assert packages.arguments == {
        **{"BASE": BASE, "LOCK": "gateway", "PIP_OPTIONS": FETCHED, "UV_OPTIONS": FETCHED}
    }
    assert engine.contexts[gateway.reference] == {"dist/disagfusion-1.2.3-py3-none-any.whl"}
    assert gateway.arguments == {"BASE": packages.reference, "VERSION": "1.2.3"}
    assert gateway.labels == {"org.opencontainers.image.revision": "c0ffee"}


def test_what_is_unchanged_is_left_alone(
    build: Callable[..., list[str]], engine: PlayedEngine
) -> None:
    build("gateway", "operator")
    said = build("gateway", "operator")
    assert engine.builds == []
    assert engine.saved == []
    assert said == ["gateway: as it was", "operator: as it was"]


def test_changed_code_leaves_the_packages_alone(
    build: Callable[..., list[str]], engine: PlayedEngine, places: Places
) -> None:
    build("gateway", "dit")
    version = places.root / "disagfusion" / "version.py"
    version.write_text(version.read_text() + "# new\n")
    build("gateway", "dit")
    assert engine.built == ["gateway", "dit"]
    assert len(engine.saved) == 2
    assert engine.removed == ["id-1", "id-3"]  # What had these names before.
    assert engine.pruned


def test_a_changed_lock_replaces_its_packages(
    build: Callable[..., list[str]], engine: PlayedEngine, places: Places
) -> None:
    build("gateway", "operator")
    (places.requirements / "gateway.txt").write_text("gateway==2\n")
    build("gateway", "operator")
    assert engine.built == ["gateway-dependencies", "gateway"]
    kept = [name for name in engine.images if "gateway-dependencies" in name]
    assert kept == [engine.builds[0].reference]


def test_another_base_changes_everything(
    build: Callable[..., list[str]], engine: PlayedEngine
) -> None:
    build("gateway")
    engine.images[BASE] = "patched"
    build("gateway")
    assert engine.built == ["gateway-dependencies", "gateway"]


@pytest.mark.parametrize("lost", ["archive", "image"])
def test_what_was_removed_by_hand_comes_back(
    build: Callable[..., list[str]], engine: PlayedEngine, places: Places, lost: str
) -> None:
    build("gateway")
    if lost == "archive":
        (places.output / "disagfusion-gateway.tar").unlink()
    else:
        engine.remove("localhost/disagfusion-gateway:1.2.3")
    build("gateway")
    assert engine.built == ([] if lost == "archive" else ["gateway"])
    assert len(engine.saved) == 1


def test_a_stage_that_is_built_alone_is_saved_with_the_others(
    build: Callable[..., list[str]], engine: PlayedEngine, places: Places
) -> None:
    build("encoder", "dit")
    (places.dockerfiles / "dit.Dockerfile").write_text("FROM new\n")
    build("dit")
    assert engine.built == ["dit"]
    assert engine.saved == [
        ("localhost/disagfusion-dit:1.2.3", "localhost/disagfusion-encoder:1.2.3")
    ]


def test_a_base_that_cannot_be_fetched_is_made_here(
    build: Callable[..., list[str]], engine: PlayedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(debian, "run", lambda command, environment: ran.append(command[0]))
    monkeypatch.setattr(debian, "install", lambda programs, say: None)
    del engine.images[BASE]
    said = build("gateway")
    assert said[0] == f"{BASE} cannot be fetched (no such host)"
    assert engine.builds[1].arguments["BASE"] == debian.reference()
    assert ran == ["mmdebstrap"]
    build("operator")
    assert engine.pulled == [BASE]  # It is not asked for again.


def test_a_base_that_can_be_fetched_is(
    build: Callable[..., list[str]], engine: PlayedEngine
) -> None:
    del engine.images[BASE]
    engine.reachable = True
    build("gateway")
    assert engine.builds[0].arguments["BASE"] == BASE


def test_a_base_that_was_asked_for_is_not_replaced(
    build: Callable[..., list[str]], engine: PlayedEngine
) -> None:
    with pytest.raises(ImageError, match="no such host"):
        build("gateway", options=Options(base="example.org/python:1"))
    assert engine.builds == []


def test_torch_for_cpus_needs_its_index(
    build: Callable[..., list[str]], engine: PlayedEngine
) -> None:
    with pytest.raises(ImageError, match="--torch-index: is missing"):
        build("dit", options=Options(variant=Variant.CPU))
    assert engine.builds == []


@pytest.mark.parametrize(
    ("options", "own_lock", "expected"),
    [
        (Options(), True, (FETCHED, FETCHED)),
        (Options(torch_index="file:///t"), False, (FETCHED, FETCHED)),
        (Options(fetch=False), True, ("", "")),
        (
            Options(torch_index="file:///t", fetch=False),
            False,
            ("", "--index file:///t --index-strategy unsafe-best-match"),
        ),
    ],
)
def test_where_packages_come_from(
    options: Options, own_lock: bool, expected: tuple[str, str]
) -> None:
    assert install_options(options, own_lock=own_lock) == expected
