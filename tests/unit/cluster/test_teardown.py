from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from tools.cluster import cgroups, host, lifecycle, network
from tools.cluster.errors import ClusterError
from tools.cluster.layout import Layout
from tools.cluster.processes import Record, marked, started_at, wait_for

SLEEP = [sys.executable, "-c", "import signal; signal.pause()"]


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    # The machine may have a cluster of its own, which these tests have nothing to do with.
    monkeypatch.setattr(network, "owner", lambda: None)
    return Layout(tmp_path / ".cluster")


@pytest.fixture
def said() -> list[str]:
    return []


def test_down_where_nothing_ever_was_up_is_no_error(layout: Layout, said: list[str]) -> None:
    lifecycle.down(layout, said.append)
    assert said == ["nothing runs"]


@pytest.fixture
def half_up(layout: Layout) -> Iterator[Layout]:
    """A start that failed after its first program."""
    for directory in (layout.processes, layout.logs, layout.pki):
        directory.mkdir(parents=True)
    layout.kubeconfig.write_text("")
    processes = lifecycle.processes_of(layout)
    processes.start("etcd", SLEEP)
    # For a moment after exec the kernel shows an empty environment.
    wait_for("it bears its mark", 10, lambda: bool(marked(layout.root)))
    yield layout
    processes.kill_all()


def test_down_ends_what_a_failed_start_left(half_up: Layout, said: list[str]) -> None:
    record = lifecycle.processes_of(half_up).record("etcd")
    lifecycle.down(half_up, said.append)
    assert record is not None
    assert not lifecycle.processes_of(half_up).alive("etcd")
    assert started_at(record.pid) != record.started
    assert not half_up.run.exists()
    assert not half_up.kubeconfig.exists()
    assert half_up.logs.exists()
    assert said[-1].startswith("down after")


def test_somebody_elses_cluster_is_left_to_them(
    half_up: Layout, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: half_up.run.stat().st_uid + 1)
    with pytest.raises(ClusterError, match="somebody else, perhaps root, started the cluster"):
        lifecycle.down(half_up, said.append)
    assert lifecycle.processes_of(half_up).alive("etcd")


def test_real_nodes_need_root(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ClusterError, match="real nodes need root"):
        lifecycle.up(layout, {"nodes": 1}, lambda line: None)


def test_a_directory_whose_path_is_too_long_for_sockets_is_named(tmp_path: Path) -> None:
    Layout(Path("/srv/disagfusion/.cluster")).check()
    with pytest.raises(ClusterError, match="is too long for the sockets below it by"):
        Layout(tmp_path / ("long" * 20) / ".cluster").check()


def test_down_twice_is_no_error(half_up: Layout, said: list[str]) -> None:
    lifecycle.down(half_up, said.append)
    lifecycle.down(half_up, said.append)
    assert said[-1] == "nothing runs"


def test_after_the_machine_started_anew_nobody_elses_process_is_ended(
    layout: Layout, said: list[str]
) -> None:
    layout.processes.mkdir(parents=True)
    stale = Record("etcd", os.getpid(), 1, "an-earlier-boot", ("etcd",))
    (layout.processes / "etcd.json").write_text(json.dumps(asdict(stale)))
    layout.kubeconfig.write_text("")
    lifecycle.down(layout, said.append)
    assert said == ["nothing runs"]
    assert not layout.run.exists()
    assert not layout.kubeconfig.exists()


def test_a_cluster_is_up_only_when_it_was_started_to_the_end(half_up: Layout) -> None:
    assert not lifecycle.running(half_up)
    half_up.options.write_text("{}")
    assert lifecycle.running(half_up)


def test_images_stay_and_volumes_go(layout: Layout, said: list[str]) -> None:
    for directory in (layout.stores / "node1", layout.volumes / "volume-1"):
        directory.mkdir(parents=True)
    lifecycle.down(layout, said.append)
    assert (layout.stores / "node1").exists()
    assert not layout.volumes.exists()
    lifecycle.purge(layout, said.append)
    assert not layout.stores.exists()


def environment(proc: Path, pid: int, **variables: str) -> None:
    (proc / str(pid)).mkdir(parents=True)
    content = b"".join(f"{name}={value}".encode() + b"\0" for name, value in variables.items())
    (proc / str(pid) / "environ").write_bytes(content)


def test_only_what_bears_this_clusters_mark_is_killed(
    layout: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proc, killed = tmp_path / "proc", list[int]()
    environment(proc, 1, PATH="/bin", DISAGFUSION_CLUSTER=str(layout.root))
    environment(proc, 2, DISAGFUSION_CLUSTER=f"{layout.root}-of-another")
    environment(proc, 3, ANOTHER_DISAGFUSION_CLUSTER=str(layout.root))
    environment(proc, 4)
    (proc / "5").mkdir()

    def kill(pid: int, number: int) -> None:
        killed.append(pid)
        shutil.rmtree(proc / str(pid))

    monkeypatch.setattr(os, "kill", kill)
    assert lifecycle.kill_others(layout, proc) == 1
    assert killed == [1]


def test_what_was_started_is_found_without_its_record(half_up: Layout, said: list[str]) -> None:
    processes = lifecycle.processes_of(half_up)
    record = processes.record("etcd")
    assert record is not None
    shutil.rmtree(half_up.processes)
    lifecycle.down(half_up, said.append)
    assert started_at(record.pid) != record.started
    assert said[0].startswith("0 programs and 1 processes of theirs ended")


def test_mounts_are_found_the_deepest_first(tmp_path: Path) -> None:
    table = tmp_path / "mounts"
    table.write_text(
        "tmpfs /a/.cluster/run tmpfs rw 0 0\n"
        "overlay /a/.cluster/run/node1/rootfs overlay rw 0 0\n"
        "tmpfs /a/.cluster/run/with\\040space tmpfs rw 0 0\n"
        "tmpfs /a/.cluster/running tmpfs rw 0 0\n"
        "tmpfs /a tmpfs rw 0 0\n"
    )
    assert host.mounts(Path("/a/.cluster/run"), table) == [
        Path("/a/.cluster/run/with space"),
        Path("/a/.cluster/run/node1/rootfs"),
        Path("/a/.cluster/run"),
    ]


def test_kernel_settings_are_put_back(tmp_path: Path) -> None:
    sysctls, saved = tmp_path / "sys", tmp_path / "host.json"
    for name, value in {"kernel/panic": "0", "vm/overcommit_memory": "0"}.items():
        (sysctls / name).parent.mkdir(parents=True, exist_ok=True)
        (sysctls / name).write_text(f"{value}\n")
    host.remember_settings(saved, sysctls)
    (sysctls / "kernel/panic").write_text("10\n")
    assert host.restore_settings(saved, sysctls) == ["kernel/panic"]
    assert (sysctls / "kernel/panic").read_text() == "0"
    assert host.restore_settings(tmp_path / "nothing.json", sysctls) == []


def hierarchy(root: Path, name: str, files: dict[str, str]) -> Path:
    (root / name).mkdir(parents=True)
    for file, text in {"cgroup.procs": "", **files}.items():
        (root / name / file).write_text(text)
    return root / name


def test_a_group_of_version_1_is_made_in_every_hierarchy(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    hierarchy(root, "memory", {})
    hierarchy(root, "cpuset", {"cpuset.cpus": "0-1\n", "cpuset.mems": "0\n"})
    (root / "cpu,cpuacct").symlink_to(root / "memory")
    cgroups.create("dfc-node1", root)
    assert [path.name for path in cgroups.hierarchies(root)] == ["cpuset", "memory"]
    assert (root / "cpuset/dfc-node1/cpuset.cpus").read_text() == "0-1\n"
    assert (root / "memory/dfc-node1").is_dir()


def test_a_group_of_version_2_is_made_once_with_its_controllers(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    root.mkdir()
    (root / "cgroup.controllers").write_text("cpu memory pids rdma\n")
    (root / "cgroup.subtree_control").write_text("")
    cgroups.create("dfc-node1", root)
    assert (root / "cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    assert (root / "dfc-node1").is_dir()


def test_processes_of_groups_below_are_found_and_empty_groups_removed(tmp_path: Path) -> None:
    root = tmp_path / "cgroup"
    hierarchy(root, "pids", {})
    below = root / "pids/dfc-node1/kubepods/pod1"
    below.mkdir(parents=True)
    (below / "cgroup.procs").write_text("11\n12\n")
    (root / "pids/dfc-node1/cgroup.procs").write_text("13\n")
    assert cgroups.processes("dfc-node1", root) == {11, 12, 13}
    (below / "cgroup.procs").unlink()
    cgroups.remove("dfc-node1", root)
    # This one still has a file, as a group in use has processes.
    assert (root / "pids/dfc-node1").exists()
    assert not (root / "pids/dfc-node1/kubepods").exists()


def test_sockets_outside_of_the_directory_are_removed_where_they_are_containerds(
    layout: Layout, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "somebody.sock"
    elsewhere.touch()
    task = layout.node("node1").tasks / "container"
    task.mkdir(parents=True)
    (task / "address").write_text(f"unix://{elsewhere}")
    lifecycle.forget_sockets(layout, "node1")
    assert elsewhere.exists()


def test_the_networks_owner_is_known_by_its_mark(
    layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(network, "owner", lambda: str(layout.root))
    assert network.owned(layout.root)
    assert not network.owned(Path("/another/.cluster"))
    monkeypatch.setattr(network, "owner", lambda: "")
    assert not network.owned(layout.root)
