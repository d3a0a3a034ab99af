"""Where the programs are that a cluster consists of, and what Debian is asked for."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tools.cluster import commands
from tools.cluster.errors import ClusterError
from tools.cluster.layout import ROOT
from tools.cluster.options import ASSETS

BUILT = ROOT / ".tools" / "bin"
_OF_ASSETS = ("etcd", "kube-apiserver", "kubectl")
PLUGIN_DIRECTORIES = (Path("/usr/lib/cni"), Path("/opt/cni/bin"))
_PLUGINS = ("ptp", "host-local", "loopback")


@dataclass(frozen=True)
class Package:
    """A Debian package that real nodes need.

    Attributes:
        name: The package.
        program: What it is wanted for; where that is there, whoever brought it, the package is not
            installed.
    """

    name: str
    program: str


PACKAGES = (
    Package("containerd", "containerd"),
    Package("runc", "runc"),
    Package("nftables", "nft"),
    Package("iproute2", "ip"),
    Package("mount", "mount"),
    Package("util-linux", "nsenter"),
)
PLUGINS_PACKAGE = "containernetworking-plugins"


def find(
    name: str, environment: Mapping[str, str] = os.environ, built: Path = BUILT
) -> Path | None:
    """Return where a program of Kubernetes is.

    That of KUBEBUILDER_ASSETS comes before the built one, and what is on the PATH comes last.
    """
    places = [built]
    if (assets := environment.get(ASSETS)) and name in _OF_ASSETS:
        places.insert(0, Path(assets))
    for place in places:
        if os.access(place / name, os.X_OK):
            return place / name
    installed = shutil.which(name, path=environment.get("PATH", ""))
    return Path(installed) if installed else None


def need(name: str, environment: Mapping[str, str] = os.environ, built: Path = BUILT) -> Path:
    """Return where a program of Kubernetes is.

    Raises:
        ClusterError: It was not built and is not installed.
    """
    if (found := find(name, environment, built)) is None:
        raise ClusterError(
            f"{name} is neither in {built} nor on the PATH: build it with `make cluster-tools`"
        )
    return found


def system(name: str) -> str:
    """Return where a program of the machine is.

    Raises:
        ClusterError: It is not installed.
    """
    if (found := shutil.which(name, path=commands.environment()["PATH"])) is None:
        raise ClusterError(f"{name} is not installed")
    return found


def plugins() -> Path:
    """Return the directory of the network plugins.

    Raises:
        ClusterError: There is none that has all that are needed.
    """
    for directory in PLUGIN_DIRECTORIES:
        if all((directory / name).exists() for name in _PLUGINS):
            return directory
    raise ClusterError(f"the network plugins {', '.join(_PLUGINS)} are not installed")


def missing() -> list[str]:
    """Return the Debian packages that real nodes need and the machine lacks."""
    path = commands.environment()["PATH"]
    names = [package.name for package in PACKAGES if not shutil.which(package.program, path=path)]
    try:
        plugins()
    except ClusterError:
        names.append(PLUGINS_PACKAGE)
    return names
