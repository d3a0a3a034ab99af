"""Archives: written for containerd and Docker, and read whoever wrote them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from tools.images import archive, sharing
from tools.images.archive import Layer, SavedImage
from tools.images.errors import ImageError
from tools.images.record import Built, Record
from tools.images.sizes import table

BIG, SMALL, OTHER = b"b" * 5000, b"s" * 100, b"o" * 70
TITLE = "org.opencontainers.image.title"


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def config_of(layers: Sequence[bytes], title: str) -> bytes:
    content = {
        "rootfs": {"diff_ids": [digest(layer) for layer in layers]},
        "config": {"User": "65532:65532", "Labels": {TITLE: title}},
    }
    return json.dumps(content).encode()


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    """An OCI layout with two images that share a layer."""
    root = tmp_path / "layout"
    blobs = root / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def add(data: bytes) -> dict[str, object]:
        (blobs / digest(data).partition(":")[2]).write_bytes(data)
        return {"digest": digest(data), "size": len(data)}

    manifests = []
    for name, layers in (("localhost/a:1", [BIG, SMALL]), ("localhost/b:1", [BIG, OTHER])):
        manifest = {
            "config": add(config_of(layers, name)),
            "layers": [add(layer) for layer in layers],
        }
        entry = add(json.dumps(manifest).encode())
        manifests.append({**entry, "annotations": {"org.opencontainers.image.ref.name": name}})
    (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    (root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": manifests}))
    return root


EXPECTED = (
    SavedImage(
        "localhost/a:1",
        (Layer(digest(BIG), 5000), Layer(digest(SMALL), 100)),
        "65532:65532",
        {TITLE: "localhost/a:1"},
    ),
    SavedImage(
        "localhost/b:1",
        (Layer(digest(BIG), 5000), Layer(digest(OTHER), 70)),
        "65532:65532",
        {TITLE: "localhost/b:1"},
    ),
)


def test_what_is_written_is_read(layout: Path, tmp_path: Path) -> None:
    archive.name_images(layout)
    archive.pack(layout, tmp_path / "both.tar")
    assert archive.images(tmp_path / "both.tar") == EXPECTED
    assert [image.size for image in EXPECTED] == [5100, 5070]
    with tarfile.open(tmp_path / "both.tar") as tar:
        names = tar.getnames()
    assert names[:3] == ["index.json", "manifest.json", "oci-layout"]
    assert len(names) == len(set(names)) == 3 + 3 + 2 * 2  # The shared layer is there once.


def test_containerd_finds_the_names(layout: Path) -> None:
    archive.name_images(layout)
    index = json.loads((layout / "index.json").read_text())
    annotations = [entry["annotations"] for entry in index["manifests"]]
    assert [found["io.containerd.image.name"] for found in annotations] == [
        "localhost/a:1",
        "localhost/b:1",
    ]


def test_the_same_layout_makes_the_same_bytes(layout: Path, tmp_path: Path) -> None:
    archive.name_images(layout)
    archive.pack(layout, tmp_path / "one.tar")
    (layout / "index.json").touch()
    archive.pack(layout, tmp_path / "two.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_a_layer_that_is_there_compressed_is_not_copied_again(layout: Path) -> None:
    index = json.loads((layout / "index.json").read_text())
    second = index["manifests"].pop()
    (layout / "index.json").write_text(json.dumps(index))
    first = json.loads(sharing.blob(layout, index["manifests"][0]["digest"]).read_text())
    packed = {"digest": digest(b"packed"), "size": 6}
    sharing.blob(layout, digest(b"packed")).write_bytes(b"packed")
    sharing.blob(layout, digest(BIG)).unlink()
    first["layers"][0] = packed
    sharing.blob(layout, index["manifests"][0]["digest"]).write_text(json.dumps(first))

    announced = sharing.announce(layout)
    assert announced == {digest(BIG): packed, digest(SMALL): first["layers"][1]}
    # What copies the second image finds this, and does not write it.
    assert sharing.blob(layout, digest(BIG)).read_bytes() == b""
    index["manifests"].append(second)
    (layout / "index.json").write_text(json.dumps(index))
    sharing.settle(layout, announced)

    archive.name_images(layout)
    _, entry = json.loads((layout / "manifest.json").read_text())
    assert entry["RepoTags"] == ["localhost/b:1"]
    assert [name.rpartition("/")[2] for name in entry["Layers"]] == [
        found.partition(":")[2] for found in (digest(b"packed"), digest(OTHER))
    ]
    assert not sharing.blob(layout, digest(BIG)).exists()
    for image in json.loads((layout / "index.json").read_text())["manifests"]:
        data = sharing.blob(layout, image["digest"]).read_bytes()
        if image["annotations"]["org.opencontainers.image.ref.name"] == "localhost/b:1":
            assert (digest(data), len(data)) == (image["digest"], image["size"])


def test_an_empty_layout_shares_nothing(tmp_path: Path) -> None:
    assert sharing.announce(tmp_path / "none") == {}


def test_links_of_podman_are_followed(tmp_path: Path) -> None:
    path = tmp_path / "podman.tar"
    manifest = []
    with tarfile.open(path, "w") as tar:

        def add(name: str, data: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))

        add("big.tar", BIG)
        for name in ("a", "b"):
            link = tarfile.TarInfo(f"{name}/layer.tar")
            link.type, link.linkname = tarfile.SYMTYPE, "../big.tar"
            tar.addfile(link)
            add(f"{name}.json", config_of([BIG], name))
            tags = [f"localhost/{name}:1"]
            manifest.append(
                {"Config": f"{name}.json", "RepoTags": tags, "Layers": [f"{name}/layer.tar"]}
            )
        add("manifest.json", json.dumps(manifest).encode())
    assert [image.layers for image in archive.images(path)] == [(Layer(digest(BIG), 5000),)] * 2


@pytest.mark.parametrize("content", [b"", b"not an archive at all" * 100])
def test_what_is_no_archive_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "some.tar"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"some\.tar is not an archive of images"):
        archive.images(path)


def test_an_archive_that_cannot_be_written_leaves_nothing(layout: Path, tmp_path: Path) -> None:
    target = tmp_path / "taken.tar"
    target.mkdir()
    with pytest.raises(OSError, match="directory"):
        archive.pack(layout, target)
    assert [path.name for path in tmp_path.iterdir() if path != layout] == ["taken.tar"]


def test_sizes_tell_what_is_shared() -> None:
    built = Built(inputs="", image="", archive="", size=7_000_000, seconds=1.5)
    large = SavedImage("localhost/c:1", (Layer("x", 3_000_000), EXPECTED[0].layers[0]), "", {})
    record = Record(images={"localhost/a:1": built})
    assert table((*EXPECTED, large), record).splitlines()[2:] == [
        "| `localhost/a:1` | 2 | 7 | 0.0 | 0.0 | 1.5 s |",
        "| `localhost/b:1` | 2 |  | 0.0 | 0.0 |  |",
        "| `localhost/c:1` | 2 |  | 3.0 | 3.0 |  |",
    ]
