"""Archives of images: an OCI layout in a tar file, as Docker and containerd read it."""

from __future__ import annotations

import json
import os
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.images.errors import ImageError

_OCI_NAME = "org.opencontainers.image.ref.name"
_CONTAINERD_NAME = "io.containerd.image.name"


@dataclass(frozen=True)
class Layer:
    """A layer of an image.

    Attributes:
        digest: Of its content, unpacked.
        size: Bytes in the archive, where it may be compressed.
    """

    digest: str
    size: int


@dataclass(frozen=True)
class SavedImage:
    """An image in an archive.

    Attributes:
        reference: Its full name.
        layers: From the base up.
        user: Whom its process runs as.
        labels: What it says of itself.
    """

    reference: str
    layers: tuple[Layer, ...]
    user: str
    labels: dict[str, str]

    @property
    def size(self) -> int:
        """Bytes of all layers in the archive."""
        return sum(layer.size for layer in self.layers)


def name_images(layout: Path) -> None:
    """Write into an OCI layout what the images in it are called, for containerd and Docker.

    Args:
        layout: A directory whose index has the names as the image specification says.
    """
    index_file = layout / "index.json"
    index = json.loads(index_file.read_text())
    docker = []
    for entry in index["manifests"]:
        name = entry["annotations"][_OCI_NAME]
        entry["annotations"][_CONTAINERD_NAME] = name
        manifest = json.loads((layout / _blob(entry["digest"])).read_text())
        docker.append(
            {
                "Config": _blob(manifest["config"]["digest"]),
                "RepoTags": [name],
                "Layers": [_blob(layer["digest"]) for layer in manifest["layers"]],
            }
        )
    index_file.write_text(json.dumps(index))
    (layout / "manifest.json").write_text(json.dumps(docker))


def _blob(digest: str) -> str:
    return "blobs/" + digest.replace(":", "/")


def pack(layout: Path, path: Path) -> None:
    """Write an OCI layout into a tar file, which is there whole or not at all.

    The same layout gives the same bytes.
    """
    temporary = path.with_name(f".{path.name}.new")
    # What says what is inside comes first, so that a reader finds it at once.
    first = ("oci-layout", "index.json", "manifest.json")
    files = [p.relative_to(layout).as_posix() for p in layout.rglob("*") if p.is_file()]
    try:
        with tarfile.open(temporary, "w") as tar:
            for name in sorted(files, key=lambda name: (name not in first, name)):
                member = tarfile.TarInfo(name)
                member.size = (layout / name).stat().st_size
                with (layout / name).open("rb") as file:
                    tar.addfile(member, file)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def images(path: Path) -> tuple[SavedImage, ...]:
    """Return what is in an archive, of this tool or of `docker save` or `podman save`.

    Raises:
        ImageError: It is not such an archive.
    """
    try:
        with tarfile.open(path) as tar:
            return tuple(_image(tar, entry) for entry in _read(tar, "manifest.json"))
    except (OSError, KeyError, ValueError, tarfile.TarError) as error:
        raise ImageError(f"{path} is not an archive of images: {error}") from error


def _read(tar: tarfile.TarFile, name: str) -> Any:
    file = tar.extractfile(name)
    if file is None:
        raise ValueError(f"{name} is not a file")
    return json.load(file)


def _image(tar: tarfile.TarFile, entry: dict[str, Any]) -> SavedImage:
    config = _read(tar, entry["Config"])
    names: list[str] = entry["Layers"]
    # Podman's archives hold a layer that is in several images once, and links to it.
    sizes = [_size(tar, tar.getmember(name)) for name in names]
    layers = zip(config["rootfs"]["diff_ids"], sizes, strict=True)
    run = config["config"]
    return SavedImage(
        reference=entry["RepoTags"][0],
        layers=tuple(Layer(digest, size) for digest, size in layers),
        user=run.get("User", ""),
        labels=run.get("Labels") or {},
    )


def _size(tar: tarfile.TarFile, member: tarfile.TarInfo) -> int:
    if member.issym():
        target = os.path.normpath(os.path.join(os.path.dirname(member.name), member.linkname))
        return tar.getmember(target).size
    return member.size
