from __future__ import annotations

import json
import tomllib
from pathlib import Path

import yaml

from tools.cluster import configs
from tools.cluster.addresses import plan
from tools.cluster.layout import Layout
from tools.cluster.options import Options

LAYOUT = Layout(Path("/checkout/.cluster"))
ADDRESSES = plan(["node1", "node2"])
NODE = ADDRESSES.nodes[1]
FILES = LAYOUT.node(NODE.name)


def test_containerd_keeps_images_and_state_of_each_node_apart() -> None:
    settings = tomllib.loads(configs.containerd(FILES, Path("/usr/lib/cni")))
    assert settings["root"] == "/checkout/.cluster/stores/node2"
    assert settings["state"] == "/checkout/.cluster/run/node2/containerd"
    assert settings["grpc"]["address"] == "/checkout/.cluster/run/node2/containerd.sock"
    cri = settings["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["cni"] == {
        "bin_dir": "/usr/lib/cni",
        "conf_dir": "/checkout/.cluster/run/node2/cni",
    }
    assert cri["sandbox_image"] == configs.PAUSE_IMAGE


def test_containerd_works_without_systemd_and_without_every_capability() -> None:
    settings = tomllib.loads(configs.containerd(FILES, Path("/usr/lib/cni")))
    cri = settings["plugins"]["io.containerd.grpc.v1.cri"]
    assert cri["restrict_oom_score_adj"] is True
    assert cri["containerd"]["runtimes"]["runc"]["options"] == {"SystemdCgroup": False}


def test_paths_with_quotes_are_quoted() -> None:
    files = Layout(Path('/a "checkout"/.cluster')).node("node1")
    settings = tomllib.loads(configs.containerd(files, Path("/usr/lib/cni")))
    assert settings["root"] == '/a "checkout"/.cluster/stores/node1'


def test_pods_get_addresses_of_their_nodes_range() -> None:
    document = json.loads(configs.cni(NODE, FILES))
    assert document["plugins"][0]["ipam"]["ranges"] == [[{"subnet": "10.244.2.0/24"}]]


def kubelet(options: Options) -> dict[str, object]:
    document: dict[str, object] = yaml.safe_load(
        configs.kubelet(NODE, FILES, LAYOUT, ADDRESSES, options)
    )
    return document


def test_a_kubelet_listens_and_asks_with_its_own_addresses() -> None:
    document = kubelet(Options(node_grace_seconds=30))
    assert document["address"] == "10.89.0.12"
    assert document["clusterDNS"] == ["10.89.0.1"]
    assert document["cgroupRoot"] == "/dfc-node2"
    assert document["nodeLeaseDurationSeconds"] == 30
    assert document["authentication"]["anonymous"] == {"enabled": False}  # type: ignore[index]


def test_a_kubelets_own_limits_stay_unless_others_are_asked_for() -> None:
    assert "kubeAPIQPS" not in kubelet(Options())
    raised = kubelet(Options(api_qps=100, feature_gates="A=true,B=false"))
    assert (raised["kubeAPIQPS"], raised["kubeAPIBurst"]) == (100, 200)
    assert raised["featureGates"] == {"A": True, "B": False}


def test_kube_proxy_leaves_the_machines_table_of_connections_alone() -> None:
    document = yaml.safe_load(configs.kube_proxy(NODE, Path("/access")))
    assert document["conntrack"] == {"maxPerCore": 0, "min": 0}
    assert document["mode"] == "nftables"


def test_dns_listens_where_pods_ask() -> None:
    text = configs.corefile(ADDRESSES, Path("/access"))
    assert "bind 10.89.0.1\n" in text
    assert "kubeconfig /access\n" in text
    # Names of the world outside are not asked for.
    assert "forward" not in text


def test_a_fake_node_has_room_and_keeps_real_pods_away() -> None:
    node = configs.fake_node("fake-h100-1", "h100", 8, cpu=32, memory="256Gi", labels=["zone=a"])
    assert node["status"]["capacity"] == node["status"]["allocatable"]
    assert node["status"]["capacity"]["nvidia.com/gpu"] == "8"
    assert node["metadata"]["labels"]["disagfusion.dev/pool"] == "h100"
    assert node["metadata"]["labels"]["zone"] == "a"
    assert node["spec"]["taints"][0]["effect"] == "NoSchedule"


def test_a_volume_is_of_the_default_class() -> None:
    volume = configs.volume("volume-1", Path("/volumes/1"), "5Gi")
    assert volume["spec"]["storageClassName"] == configs.storage_class()["metadata"]["name"]
    assert volume["spec"]["capacity"] == {"storage": "5Gi"}
