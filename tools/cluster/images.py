"""Images into the nodes: there is no registry, each node imports archives into its own store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.cluster import archives, commands, programs
from tools.cluster.archives import File, Image
from tools.cluster.configs import PAUSE_IMAGE
from tools.cluster.errors import ClusterError
from tools.cluster.layout import Layout

_NAMESPACE = "k8s.io"
_BY_DIGEST = "sha256:"
# Five gigabytes are a minute where the disk is idle.
_IMPORT_SECONDS = 1800
_UNPRIVILEGED = "65535"


@dataclass(frozen=True)
class Imported:
    """What a node was given, or had.

    Attributes:
        node: The node.
        image: The image's name.
        fresh: False where it was there already.
    """

    node: str
    image: str
    fresh: bool


def pause_archive(layout: Layout) -> Path:
    """Write the image that every pod begins with and return its archive."""
    program = programs.need("pause")
    path = layout.images / "pause.tar"
    if not path.exists() or path.stat().st_mtime < program.stat().st_mtime:
        layout.images.mkdir(parents=True, exist_ok=True)
        content = archives.layer({"pause": File(program.read_bytes(), 0o755)})
        settings = {"Entrypoint": ["/pause"], "User": f"{_UNPRIVILEGED}:{_UNPRIVILEGED}"}
        archives.write(path, PAUSE_IMAGE, [content], settings)
    return path


def ctr(layout: Layout, node: str, *arguments: str | Path, seconds: float = 120) -> str:
    """Run containerd's command line client on a node and return its output."""
    socket = str(layout.node(node).socket)
    client = programs.system("ctr")
    return commands.run(client, "-a", socket, "-n", _NAMESPACE, *arguments, seconds=seconds)


def qualified(name: str) -> str:
    """Return a name as containerd keeps it, with a registry and a tag."""
    registry, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif registry != "localhost" and "." not in registry and ":" not in registry:
        name = f"docker.io/{name}"
    return name if ":" in name.rpartition("/")[2] or "@" in name else f"{name}:latest"


def parse_references(listing: str) -> dict[str, str]:
    """Return the digest behind each reference that `ctr images ls` lists."""
    rows = (line.split() for line in listing.splitlines()[1:])
    return {row[0]: row[2] for row in rows if len(row) > 2}


def present(references: dict[str, str], image: Image) -> bool:
    """Tell whether a name stands for that very image.

    Kubernetes' part of containerd keeps two references to an image, by its name and by the digest
    of its configuration: both must lead to the same.
    """
    by_name = references.get(qualified(image.name))
    return by_name is not None and by_name == references.get(image.digest)


def superseded(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return references by digest that lead to what no name stands for any more."""
    named = {digest for name, digest in after.items() if not name.startswith(_BY_DIGEST)}
    replaced = {digest for name, digest in before.items() if after.get(name) != digest} - named
    return [
        name for name, digest in after.items() if name.startswith(_BY_DIGEST) and digest in replaced
    ]


def _settle(layout: Layout, node: str, images: Sequence[Image], before: dict[str, str]) -> None:
    """Make the references to what was imported complete, and drop those to what it replaced.

    Where a name had an image already, Kubernetes' part of containerd makes no reference by digest.
    """
    for image in images:
        ctr(layout, node, "images", "tag", "--force", qualified(image.name), image.digest)
    after = parse_references(ctr(layout, node, "images", "ls"))
    if old := superseded(before, after):
        ctr(layout, node, "images", "rm", *old)


def load(layout: Layout, nodes: Sequence[str], paths: Sequence[Path]) -> list[Imported]:
    """Import archives into nodes that lack an image in them.

    Raises:
        ClusterError: There are no real nodes, an archive is none, or an import failed.
    """
    if not nodes:
        raise ClusterError("the cluster has no real nodes to import images into")
    contents = {path: archives.read(path) for path in paths}
    done = []
    for node in nodes:
        for path, images in contents.items():
            references = parse_references(ctr(layout, node, "images", "ls"))
            fresh = not all(present(references, image) for image in images)
            if fresh:
                ctr(layout, node, "images", "import", path, seconds=_IMPORT_SECONDS)
                _settle(layout, node, images, references)
            done += [Imported(node, image.name, fresh) for image in images]
    return done
