from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tools.cluster import archives
from tools.cluster.archives import File, Image
from tools.cluster.errors import ClusterError
from tools.cluster.images import parse_references, present, qualified, superseded


def tar(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return path


def blob(document: Any, files: dict[str, bytes]) -> str:
    content = json.dumps(document).encode()
    digest = hashlib.sha256(content).hexdigest()
    files[f"blobs/sha256/{digest}"] = content
    return f"sha256:{digest}"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    layer = archives.layer({"bin/run": File(b"program", 0o755)})
    written = archives.write(tmp_path / "a.tar", "localhost/a:1", [layer], {"User": "65532"})
    assert archives.read(tmp_path / "a.tar") == [written]
    with tarfile.open(tmp_path / "a.tar") as archive:
        manifest = json.loads(archive.extractfile("manifest.json").read())  # type: ignore[union-attr]
        configuration = archive.extractfile(manifest[0]["Config"]).read()  # type: ignore[union-attr]
        inner = archive.extractfile(manifest[0]["Layers"][0]).read()  # type: ignore[union-attr]
    assert written.digest == f"sha256:{hashlib.sha256(configuration).hexdigest()}"
    document = json.loads(configuration)
    assert document["config"] == {"User": "65532"}
    # Engines check that a layer is what the configuration says.
    assert document["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(inner).hexdigest()}"]
    with tarfile.open(fileobj=io.BytesIO(inner)) as files:
        assert files.getmember("bin/run").mode == 0o755


def test_a_layer_may_be_a_file(tmp_path: Path) -> None:
    (tmp_path / "base.tar").write_bytes(archives.layer({"etc/a": File(b"a")}))
    from_file = archives.write(tmp_path / "a.tar", "a", [tmp_path / "base.tar"], {})
    from_bytes = archives.write(tmp_path / "b.tar", "a", [(tmp_path / "base.tar").read_bytes()], {})
    assert from_file == from_bytes
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def test_the_same_content_has_the_same_digest_and_other_content_another(tmp_path: Path) -> None:
    def digest(content: bytes) -> str:
        layer = archives.layer({"a": File(content)})
        return archives.write(tmp_path / "a.tar", "a", [layer], {}).digest

    assert digest(b"one") == digest(b"one")
    assert digest(b"one") != digest(b"two")


def test_every_tag_of_a_docker_archive_is_found(tmp_path: Path) -> None:
    configuration = b"{}"
    manifest = [{"Config": "c.json", "RepoTags": ["a:1", "a:2"], "Layers": []}]
    path = tar(
        tmp_path / "a.tar",
        {"c.json": configuration, "manifest.json": json.dumps(manifest).encode()},
    )
    digest = f"sha256:{hashlib.sha256(configuration).hexdigest()}"
    assert archives.read(path) == [Image("a:1", digest), Image("a:2", digest)]


@pytest.mark.parametrize("nested", [False, True])
def test_an_oci_archive_leads_to_its_configuration(tmp_path: Path, nested: bool) -> None:
    files: dict[str, bytes] = {}
    digest = blob({"config": {"digest": "sha256:c0ffee"}}, files)
    if nested:
        digest = blob({"manifests": [{"digest": digest}]}, files)
    name = {"org.opencontainers.image.ref.name": "localhost/a:1"}
    index = {"manifests": [{"digest": digest, "annotations": name}]}
    files["index.json"] = json.dumps(index).encode()
    assert archives.read(tar(tmp_path / "a.tar", files)) == [
        Image("localhost/a:1", "sha256:c0ffee")
    ]


def test_an_image_without_a_name_is_refused(tmp_path: Path) -> None:
    manifest = [{"Config": "c.json", "RepoTags": None, "Layers": []}]
    path = tar(tmp_path / "a.tar", {"c.json": b"", "manifest.json": json.dumps(manifest).encode()})
    with pytest.raises(ClusterError, match="an image without a name: save it with a tag"):
        archives.read(path)


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"not a tar file", "is no archive of images"), (None, "cannot be read: No such file")],
)
def test_what_is_no_archive_is_named(tmp_path: Path, content: bytes | None, expected: str) -> None:
    path = tmp_path / "a.tar"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ClusterError, match=expected):
        archives.read(path)


def test_a_tar_file_of_something_else_is_no_archive_of_images(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", {"etc/passwd": b""})
    with pytest.raises(ClusterError, match=r"neither manifest\.json nor index.json"):
        archives.read(path)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a", "docker.io/library/a:latest"),
        ("a:1", "docker.io/library/a:1"),
        ("team/a:1", "docker.io/team/a:1"),
        ("localhost/a:1", "localhost/a:1"),
        ("localhost:5000/a", "localhost:5000/a:latest"),
        ("example.org/team/a:1", "example.org/team/a:1"),
    ],
)
def test_names_are_completed_as_containerd_does(name: str, expected: str) -> None:
    assert qualified(name) == expected


def row(reference: str, digest: str) -> str:
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    return f"{reference} {kind} {digest} 1.2 MiB linux/amd64 io.cri-containerd.image=managed\n"


HEADER = "REF TYPE DIGEST SIZE PLATFORMS LABELS\n"
LISTING = HEADER + "".join(
    row(*pair)
    for pair in (
        ("localhost/a:1", "sha256:m1"),
        ("localhost/b:1", "sha256:m2"),
        ("sha256:c1", "sha256:m1"),
        ("sha256:c2", "sha256:m3"),
    )
)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (Image("localhost/a:1", "sha256:c1"), True),
        # The name stands for another image, or that image has another name only.
        (Image("localhost/b:1", "sha256:c2"), False),
        (Image("localhost/c:1", "sha256:c1"), False),
        (Image("localhost/a:1", "sha256:c3"), False),
    ],
)
def test_an_image_is_there_where_its_name_stands_for_it(image: Image, expected: bool) -> None:
    assert present(parse_references(LISTING), image) is expected


def test_nothing_is_there_in_an_empty_store() -> None:
    assert parse_references(HEADER) == {}
    assert not present({}, Image("localhost/a:1", "sha256:c1"))


def test_what_no_name_stands_for_any_more_is_superseded() -> None:
    before = {"a": "sha256:old", "sha256:c-old": "sha256:old", "b": "sha256:b"}
    after = {**before, "a": "sha256:new", "sha256:c-new": "sha256:new"}
    assert superseded(before, after) == ["sha256:c-old"]
    # Another name still stands for it.
    assert superseded(before, {**after, "c": "sha256:old"}) == []
    assert superseded(before, before) == []
    assert superseded({}, after) == []
