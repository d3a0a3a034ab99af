"""The texts of configuration files; nothing here reads or writes one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tools.cluster.addresses import DOMAIN, PODS, PREFIX, Addresses, NodeAddresses
from tools.cluster.layout import Layout, NodeFiles
from tools.cluster.options import Options

PAUSE_IMAGE = "localhost/pause:1"


def containerd(files: NodeFiles, plugins: Path) -> str:
    """Return a node's containerd configuration.

    Args:
        files: Where the node's files lie.
        plugins: Directory of the network plugins.
    """
    return f"""\
version = 2
root = {json.dumps(str(files.store))}
state = {json.dumps(str(files.containerd_state))}
disabled_plugins = [
  "io.containerd.internal.v1.opt",
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
]

[grpc]
  address = {json.dumps(str(files.socket))}

[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = {json.dumps(PAUSE_IMAGE)}
  netns_mounts_under_state_dir = true
  enable_unprivileged_ports = true
  # A machine without CAP_SYS_RESOURCE cannot give the pause container the low score it asks for.
  restrict_oom_score_adj = true

[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = {json.dumps(str(plugins))}
  conf_dir = {json.dumps(str(files.run / "cni"))}

[plugins."io.containerd.grpc.v1.cri".containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
"""


def cni(node: NodeAddresses, files: NodeFiles) -> str:
    """Return a node's list of network plugins: a cable from each pod to the node, and routes."""
    plugins: list[dict[str, Any]] = [
        {
            "type": "ptp",
            "ipMasq": False,
            "mtu": 1500,
            "ipam": {
                "type": "host-local",
                "dataDir": str(files.run / "ipam"),
                "ranges": [[{"subnet": str(node.pods)}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }
    ]
    return json.dumps({"cniVersion": "0.4.0", "name": PREFIX, "plugins": plugins}, indent=2)


def kubelet(
    node: NodeAddresses, files: NodeFiles, layout: Layout, addresses: Addresses, options: Options
) -> str:
    """Return a node's kubelet configuration."""
    document: dict[str, Any] = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": str(node.address),
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(layout.pki / "ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(layout.pki / f"{node.name}.crt"),
        "tlsPrivateKeyFile": str(layout.pki / f"{node.name}.key"),
        # Debian's containerd has no systemd driver where systemd does not run.
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{node.cgroup}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "enforceNodeAllocatable": ["pods"],
        "makeIPTablesUtilChains": False,
        "containerRuntimeEndpoint": f"unix://{files.socket}",
        "clusterDNS": [str(addresses.control_plane)],
        "clusterDomain": DOMAIN,
        "resolvConf": str(files.run / "resolv.conf"),
        "podLogsDir": str(files.run / "podlogs"),
        "volumePluginDir": str(files.run / "kubelet" / "volume-plugins"),
        # The nodes share one disk: what another project leaves free is not theirs to manage.
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "nodefs.inodesFree": "1%",
            "imagefs.available": "1%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "nodeStatusUpdateFrequency": "4s",
        "nodeLeaseDurationSeconds": options.node_grace_seconds,
        "serializeImagePulls": False,
    }
    if options.api_qps:
        document |= {"kubeAPIQPS": options.api_qps, "kubeAPIBurst": 2 * options.api_qps}
    if options.feature_gates:
        document["featureGates"] = gates(options.feature_gates)
    return yaml.safe_dump(document, sort_keys=False)


def gates(text: str) -> dict[str, bool]:
    """Return `Gate=true,…` as a mapping."""
    pairs = (part.partition("=") for part in text.split(",") if part)
    return {name.strip(): value.strip().lower() == "true" for name, _, value in pairs}


def kube_proxy(node: NodeAddresses, access: Path) -> str:
    """Return a node's kube-proxy configuration.

    Args:
        node: The node.
        access: kube-proxy's access file.
    """
    return yaml.safe_dump(
        {
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "hostnameOverride": node.name,
            "clientConnection": {"kubeconfig": str(access)},
            "clusterCIDR": str(PODS),
            # The table of connections belongs to the machine; its size is not changed.
            "conntrack": {"maxPerCore": 0, "min": 0},
            "bindAddress": str(node.address),
            "healthzBindAddress": "127.0.0.1:10256",
            "metricsBindAddress": "127.0.0.1:10249",
        },
        sort_keys=False,
    )


def corefile(addresses: Addresses, access: Path) -> str:
    """Return CoreDNS' configuration; it knows the cluster's names and no others."""
    return f"""\
.:53 {{
  bind {addresses.control_plane}
  health 127.0.0.1:8081
  ready 127.0.0.1:8181
  kubernetes {DOMAIN} {PODS} {{
    kubeconfig {access}
    pods verified
    ttl 5
  }}
  cache 5
  loadbalance
}}
"""


def fake_node(
    name: str, pool: str, gpus: int, *, cpu: int, memory: str, labels: Sequence[str] = ()
) -> dict[str, Any]:
    """Return a node that kwok plays.

    Args:
        name: Its name.
        pool: Its label `disagfusion.dev/pool`.
        gpus: How many accelerators it says that it has.
        cpu: How many cores.
        memory: How much memory, as Kubernetes writes it.
        labels: More labels, `key=value`.
    """
    room = {"cpu": str(cpu), "memory": memory, "pods": "110", "nvidia.com/gpu": str(gpus)}
    extra = {key: value for key, _, value in (label.partition("=") for label in labels)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"kwok.x-k8s.io/node": "fake", "node.alpha.kubernetes.io/ttl": "0"},
            "labels": {
                "type": "kwok",
                "disagfusion.dev/pool": pool,
                "kubernetes.io/hostname": name,
                "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64",
                **extra,
            },
        },
        "spec": {
            "taints": [{"key": "kwok.x-k8s.io/node", "value": "fake", "effect": "NoSchedule"}]
        },
        "status": {"capacity": room, "allocatable": room},
    }


def volume(name: str, path: Path, size: str) -> dict[str, Any]:
    """Return a persistent volume in a directory of the machine, which every node sees."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany", "ReadOnlyMany"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": "standard",
            "hostPath": {"path": str(path), "type": "Directory"},
        },
    }


def storage_class() -> dict[str, Any]:
    """Return the default class, whose volumes are made beforehand."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": "standard",
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "Immediate",
    }
