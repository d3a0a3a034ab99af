"""Where everything of a cluster lies: one directory in the checkout."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tools.cluster.errors import ClusterError

ROOT = Path(__file__).resolve().parents[2]
# A Unix socket's address has room for 107 characters.
_SOCKET_PATH_LIMIT = 107


@dataclass(frozen=True)
class NodeFiles:
    """Files of one real node.

    Attributes:
        run: What goes away with the cluster.
        store: containerd's content store, kept: images are imported once.
    """

    run: Path
    store: Path

    @property
    def socket(self) -> Path:
        """Where containerd listens."""
        return self.run / "containerd.sock"

    @property
    def containerd_state(self) -> Path:
        """Mounts and bundles of running containers."""
        return self.run / "containerd"

    @property
    def tasks(self) -> Path:
        """One directory for each running container, by its id."""
        return self.containerd_state / "io.containerd.runtime.v2.task" / "k8s.io"


@dataclass(frozen=True)
class Layout:
    """Directories and files of a cluster.

    Attributes:
        root: `.cluster` of the checkout.
    """

    root: Path = ROOT / ".cluster"

    @property
    def run(self) -> Path:
        """What goes away with the cluster; a file system in memory where that can be mounted."""
        return self.root / "run"

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.run / "pki"

    @property
    def processes(self) -> Path:
        """Records of what was started."""
        return self.run / "processes"

    @property
    def configs(self) -> Path:
        """Settings and credentials of the control plane's programs."""
        return self.run / "config"

    @property
    def logs(self) -> Path:
        """A log for each program; kept until the next start."""
        return self.root / "logs"

    @property
    def images(self) -> Path:
        """Archives of images that are built for the cluster."""
        return self.root / "images"

    @property
    def stores(self) -> Path:
        """Content stores of the nodes."""
        return self.root / "stores"

    @property
    def volumes(self) -> Path:
        """What is behind persistent volumes."""
        return self.root / "volumes"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's access."""
        return self.root / "kubeconfig"

    @property
    def options(self) -> Path:
        """What the running cluster was started with."""
        return self.run / "options.json"

    def node(self, name: str) -> NodeFiles:
        """Return the files of a real node."""
        return NodeFiles(run=self.run / name, store=self.stores / name)

    def check(self) -> None:
        """Check that sockets below the root can have addresses.

        Raises:
            ClusterError: The path is too long.
        """
        longest = len(str(self.node("node99").containerd_state / "containerd.sock.ttrpc"))
        if longest > _SOCKET_PATH_LIMIT:
            raise ClusterError(
                f"the path {self.root} is too long for the sockets below it by"
                f" {longest - _SOCKET_PATH_LIMIT} characters: use a checkout with a shorter path"
            )
