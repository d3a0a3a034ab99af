"""Archives of container images: what is in one, and writing one without an engine."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.cluster.errors import ClusterError

# What images call them.
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_NAME_ANNOTATION = "io.containerd.image.name"
_REFERENCE_ANNOTATION = "org.opencontainers.image.ref.name"


@dataclass(frozen=True)
class Image:
    """An image in an archive.

    Attributes:
        name: What it is called.
        digest: `sha256:…` of its configuration, which covers its layers.
    """

    name: str
    digest: str


@dataclass(frozen=True)
class File:
    """A file in a layer.

    Attributes:
        content: What is in it.
        mode: Its permissions.
    """

    content: bytes
    mode: int = 0o644


def read(path: Path) -> list[Image]:
    """Return the images in a docker or OCI archive.

    Raises:
        ClusterError: The file is no such archive, or an image in it has no name.
    """
    try:
        with tarfile.open(path) as archive:
            names = set(archive.getnames())
            if "manifest.json" in names:
                return _docker(archive)
            if "index.json" in names:
                return _oci(archive)
    except (tarfile.TarError, KeyError, ValueError) as error:
        raise ClusterError(f"{path} is no archive of images: {error}") from error
    except OSError as error:
        raise ClusterError(f"{path} cannot be read: {error.strerror or error}") from error
    raise ClusterError(
        f"{path} is no archive of images: it has neither manifest.json nor index.json"
    )


def _content(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    if file is None:
        raise KeyError(name)
    return file.read()


def _docker(archive: tarfile.TarFile) -> list[Image]:
    found = []
    for entry in json.loads(_content(archive, "manifest.json")):
        digest = hashlib.sha256(_content(archive, entry["Config"])).hexdigest()
        tags = entry.get("RepoTags") or []
        if not tags:
            raise ClusterError(f"{archive.name!s} has an image without a name: save it with a tag")
        found += [Image(tag, f"sha256:{digest}") for tag in tags]
    return found


def _oci(archive: tarfile.TarFile) -> list[Image]:
    found = []
    for entry in json.loads(_content(archive, "index.json"))["manifests"]:
        annotations = entry.get("annotations") or {}
        name = annotations.get(_NAME_ANNOTATION) or annotations.get(_REFERENCE_ANNOTATION)
        if not name:
            raise ClusterError(f"{archive.name!s} has an image without a name: save it with a tag")
        manifest = _blob(archive, entry["digest"])
        # An index of several platforms: the cluster runs on one.
        while "manifests" in manifest:
            manifest = _blob(archive, manifest["manifests"][0]["digest"])
        found.append(Image(name, manifest["config"]["digest"]))
    return found


def _blob(archive: tarfile.TarFile, digest: str) -> dict[str, Any]:
    blob: dict[str, Any] = json.loads(_content(archive, "blobs/" + digest.replace(":", "/")))
    return blob


def layer(files: Mapping[str, File]) -> bytes:
    """Return a layer with these files, by path without a leading slash.

    The same files give the same bytes.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, file in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(file.content), file.mode
            archive.addfile(entry, io.BytesIO(file.content))
    return buffer.getvalue()


def write(
    path: Path, name: str, layers: Sequence[Path | bytes], settings: Mapping[str, Any]
) -> Image:
    """Write a docker archive with one image.

    Args:
        path: Where; the file is replaced at the end, so that it is never half there.
        name: The image's name and tag.
        layers: Uncompressed layers from the lowest up: files, or their bytes.
        settings: `Entrypoint`, `Env`, `User` and the like.

    Returns:
        The image.
    """
    digests = [_digest(content) for content in layers]
    configuration = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": dict(settings),
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
        "history": [{"created_by": "tools/cluster"} for _ in digests],
    }
    encoded = json.dumps(configuration, sort_keys=True).encode()
    digest = hashlib.sha256(encoded).hexdigest()
    manifest = [
        {
            "Config": f"{digest}.json",
            "RepoTags": [name],
            "Layers": [f"{layer_digest}/layer.tar" for layer_digest in digests],
        }
    ]
    partial = path.with_name(path.name + ".partial")
    with tarfile.open(partial, "w") as archive:
        for layer_digest, content in zip(digests, layers, strict=True):
            _add(archive, f"{layer_digest}/layer.tar", content)
        _add(archive, f"{digest}.json", encoded)
        _add(archive, "manifest.json", json.dumps(manifest).encode())
    partial.replace(path)
    return Image(name, f"sha256:{digest}")


def _digest(content: Path | bytes) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _add(archive: tarfile.TarFile, name: str, content: Path | bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode = 0o644
    if isinstance(content, bytes):
        entry.size = len(content)
        archive.addfile(entry, io.BytesIO(content))
        return
    entry.size = content.stat().st_size
    with content.open("rb") as file:
        archive.addfile(entry, file)
