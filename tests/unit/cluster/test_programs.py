from __future__ import annotations

from pathlib import Path

import pytest

from tools.cluster import programs
from tools.cluster.errors import ClusterError


def program(directory: Path, name: str) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.touch(mode=0o755)
    return path


def test_somebody_elses_api_server_comes_before_the_built_one(tmp_path: Path) -> None:
    built, assets = tmp_path / "built", tmp_path / "assets"
    own, other = program(built, "kube-apiserver"), program(assets, "kube-apiserver")
    assert programs.find("kube-apiserver", {}, built) == own
    assert programs.find("kube-apiserver", {"KUBEBUILDER_ASSETS": str(assets)}, built) == other


def test_what_the_assets_lack_is_the_built_one(tmp_path: Path) -> None:
    built, assets = tmp_path / "built", tmp_path / "assets"
    own = program(built, "kubelet")
    program(assets, "kubelet")
    assert programs.find("kubelet", {"KUBEBUILDER_ASSETS": str(assets)}, built) == own
    etcd = program(built, "etcd")
    assert programs.find("etcd", {"KUBEBUILDER_ASSETS": str(assets)}, built) == etcd


def test_what_was_not_built_may_be_on_the_path(tmp_path: Path) -> None:
    built, installed = tmp_path / "built", tmp_path / "installed"
    environment = {"PATH": str(installed)}
    other = program(installed, "kubectl")
    assert programs.find("kubectl", environment, built) == other
    own = program(built, "kubectl")
    assert programs.find("kubectl", environment, built) == own


def test_a_program_that_was_not_built_is_named_with_what_builds_it(tmp_path: Path) -> None:
    with pytest.raises(
        ClusterError, match=r"etcd is neither in .* nor on the PATH: .* `make cluster-tools`"
    ):
        programs.need("etcd", {}, tmp_path)


def test_a_program_that_is_not_installed_is_named() -> None:
    with pytest.raises(ClusterError, match="no-such-program is not installed"):
        programs.system("no-such-program")


def test_plugins_are_where_all_of_them_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    some, whole = tmp_path / "some", tmp_path / "all"
    program(some, "ptp")
    for name in ("ptp", "host-local", "loopback"):
        program(whole, name)
    monkeypatch.setattr(programs, "PLUGIN_DIRECTORIES", (some, whole))
    assert programs.plugins() == whole
    monkeypatch.setattr(programs, "PLUGIN_DIRECTORIES", (some,))
    with pytest.raises(ClusterError, match="the network plugins ptp, host-local, loopback"):
        programs.plugins()
    assert programs.PLUGINS_PACKAGE in programs.missing()
