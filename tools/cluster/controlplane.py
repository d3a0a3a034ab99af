"""etcd, API server, controller manager, scheduler, DNS and kwok, as processes of the machine."""

from __future__ import annotations

import urllib.error
import urllib.request
from ipaddress import IPv4Address
from pathlib import Path

from tools.cluster import configs, policy_agent, programs
from tools.cluster.addresses import (
    API_PORT,
    DOMAIN,
    ETCD_PEER_PORT,
    ETCD_PORT,
    LOOPBACK,
    SERVICES,
    Addresses,
)
from tools.cluster.kubectl import Kubectl
from tools.cluster.layout import Layout
from tools.cluster.options import Options
from tools.cluster.pki import Authority, kubeconfig, new_key, write_private
from tools.cluster.processes import Processes, wait_for

API_SERVER = "kube-apiserver"
_ETCD_URL = f"http://127.0.0.1:{ETCD_PORT}"
_ETCD_PEER_URL = f"http://127.0.0.1:{ETCD_PEER_PORT}"
_START_SECONDS = 90
_MASTERS = "system:masters"
# User and group of each program that speaks to the API server.
_USERS = {
    "controller-manager": ("system:kube-controller-manager", None),
    "scheduler": ("system:kube-scheduler", None),
    "kube-proxy": ("system:kube-proxy", None),
    "coredns": ("coredns", _MASTERS),
    "kwok": ("kwok", _MASTERS),
}


def access(layout: Layout, name: str) -> Path:
    """Return where a program's access file lies."""
    return layout.configs / f"{name}.kubeconfig"


def write_credentials(layout: Layout, addresses: Addresses) -> None:
    """Make every certificate, key and access file."""
    authority, front = Authority("disagfusion-cluster"), Authority("disagfusion-front-proxy")
    (layout.pki / "ca.crt").write_bytes(authority.pair.certificate)
    (layout.pki / "front-proxy-ca.crt").write_bytes(front.pair.certificate)
    write_private(layout.pki / "ca.key", authority.pair.key)
    write_private(layout.pki / "service-accounts.key", new_key())
    service = "kubernetes.default.svc"
    hosts = ["localhost", "kubernetes", "kubernetes.default", service, f"{service}.{DOMAIN}"]
    reached: list[IPv4Address] = [LOOPBACK, addresses.api_service]
    if addresses.control_plane not in reached:
        reached.append(addresses.control_plane)
    authority.server(API_SERVER, hosts, reached).write(layout.pki, "apiserver")
    authority.client("kube-apiserver", _MASTERS).write(layout.pki, "kubelet-client")
    authority.client(policy_agent.USER, _MASTERS).write(layout.pki, policy_agent.USER)
    front.client("front-proxy-client").write(layout.pki, "front-proxy")
    users = dict(_USERS)
    for node in addresses.nodes:
        users[node.name] = (f"system:node:{node.name}", "system:nodes")
        name = f"system:node:{node.name}"
        pair = authority.server(name, [node.name], [node.address], "system:nodes")
        pair.write(layout.pki, node.name)
    certificate = authority.pair.certificate
    for name, (user, group) in users.items():
        text = kubeconfig(addresses.api_url, certificate, authority.client(user, group))
        write_private(access(layout, name), text.encode())
    text = kubeconfig(addresses.api_url, certificate, authority.client("admin", _MASTERS))
    write_private(layout.kubeconfig, text.encode())


def etcd_command(layout: Layout) -> list[str]:
    """Return etcd's command line.

    It does not wait for the disk: it writes to memory, and all is lost when the machine stops.
    """
    return [
        str(programs.need("etcd")),
        "--name=default",
        f"--data-dir={layout.run / 'etcd'}",
        f"--listen-client-urls={_ETCD_URL}",
        f"--advertise-client-urls={_ETCD_URL}",
        f"--listen-peer-urls={_ETCD_PEER_URL}",
        f"--initial-advertise-peer-urls={_ETCD_PEER_URL}",
        f"--initial-cluster=default={_ETCD_PEER_URL}",
        "--unsafe-no-fsync",
    ]


def apiserver_command(layout: Layout, addresses: Addresses, options: Options) -> list[str]:
    """Return the API server's command line."""
    pki, address = layout.pki, addresses.control_plane
    return [
        str(programs.need(API_SERVER)),
        f"--etcd-servers={_ETCD_URL}",
        f"--bind-address={address}",
        f"--advertise-address={address}",
        f"--secure-port={API_PORT}",
        f"--tls-cert-file={pki / 'apiserver.crt'}",
        f"--tls-private-key-file={pki / 'apiserver.key'}",
        f"--cert-dir={layout.run / 'apiserver'}",
        f"--client-ca-file={pki / 'ca.crt'}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        f"--service-account-key-file={pki / 'service-accounts.key'}",
        f"--service-account-signing-key-file={pki / 'service-accounts.key'}",
        f"--service-account-issuer=https://kubernetes.default.svc.{DOMAIN}",
        f"--service-cluster-ip-range={SERVICES}",
        f"--kubelet-certificate-authority={pki / 'ca.crt'}",
        f"--kubelet-client-certificate={pki / 'kubelet-client.crt'}",
        f"--kubelet-client-key={pki / 'kubelet-client.key'}",
        "--kubelet-preferred-address-types=InternalIP",
        "--allow-privileged=true",
        "--profiling=false",
        f"--requestheader-client-ca-file={pki / 'front-proxy-ca.crt'}",
        "--requestheader-allowed-names=front-proxy-client",
        "--requestheader-username-headers=X-Remote-User",
        "--requestheader-group-headers=X-Remote-Group",
        "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        f"--proxy-client-cert-file={pki / 'front-proxy.crt'}",
        f"--proxy-client-key-file={pki / 'front-proxy.key'}",
        # Nobody reaches a service's address where there are no nodes, and loopback is not one.
        *([] if addresses.nodes else ["--endpoint-reconciler-type=none"]),
        *options.flags("apiserver"),
    ]


def controller_manager_command(layout: Layout, options: Options) -> list[str]:
    """Return the controller manager's command line."""
    path, pki = access(layout, "controller-manager"), layout.pki
    return [
        str(programs.need("kube-controller-manager")),
        *_speaks_to_api(path),
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={pki / 'service-accounts.key'}",
        f"--root-ca-file={pki / 'ca.crt'}",
        f"--cluster-signing-cert-file={pki / 'ca.crt'}",
        f"--cluster-signing-key-file={pki / 'ca.key'}",
        f"--cert-dir={layout.run / 'controller-manager'}",
        f"--node-monitor-grace-period={options.node_grace_seconds}s",
        "--node-monitor-period=2s",
        *options.flags("controller_manager"),
    ]


def scheduler_command(layout: Layout, options: Options) -> list[str]:
    """Return the scheduler's command line."""
    return [
        str(programs.need("kube-scheduler")),
        *_speaks_to_api(access(layout, "scheduler")),
        f"--cert-dir={layout.run / 'scheduler'}",
        *options.flags("scheduler"),
    ]


def ports(addresses: Addresses, options: Options) -> list[tuple[str, int]]:
    """Return where programs of the control plane listen, by address and port."""
    found = [(str(LOOPBACK), port) for port in (ETCD_PORT, ETCD_PEER_PORT, 10257, 10259)]
    found.append((str(addresses.control_plane), API_PORT))
    if addresses.nodes:
        found += [(str(LOOPBACK), 8081), (str(LOOPBACK), 8181)]
    if options.kwok:
        found.append((str(LOOPBACK), 10248))
    return found


def _speaks_to_api(path: Path) -> list[str]:
    return [
        f"--kubeconfig={path}",
        f"--authentication-kubeconfig={path}",
        f"--authorization-kubeconfig={path}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
    ]


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return int(answer.status) == 200
    except (urllib.error.URLError, OSError):
        return False


def wait_for_api(layout: Layout, processes: Processes, kubectl: Kubectl) -> None:
    """Wait until the API server is ready, its built-in roles included.

    Raises:
        ClusterError: It ended, or takes too long.
    """
    wait_for(
        "the API server",
        _START_SECONDS,
        lambda: kubectl.succeeds("get", "--raw", "/readyz", seconds=10),
        processes.why_not(API_SERVER),
    )


def start_storage_and_api(
    layout: Layout, addresses: Addresses, options: Options, processes: Processes, kubectl: Kubectl
) -> None:
    """Start etcd and the API server and wait until both are ready."""
    processes.start("etcd", etcd_command(layout))
    wait_for(
        "etcd",
        _START_SECONDS,
        lambda: _healthy(f"{_ETCD_URL}/health"),
        processes.why_not("etcd"),
    )
    processes.start(API_SERVER, apiserver_command(layout, addresses, options))
    wait_for_api(layout, processes, kubectl)


def start_controllers(
    layout: Layout, addresses: Addresses, options: Options, processes: Processes
) -> list[str]:
    """Start what works on top of a ready API server; return the names of what was started.

    A controller manager that is started before the API server is ready ends.
    """
    started = []
    # KUBEBUILDER_ASSETS has neither; an API server alone is enough for some tests.
    if addresses.nodes or programs.find("kube-controller-manager"):
        processes.start("kube-controller-manager", controller_manager_command(layout, options))
        processes.start("kube-scheduler", scheduler_command(layout, options))
        started += ["kube-controller-manager", "kube-scheduler"]
    if addresses.nodes:
        corefile = layout.configs / "Corefile"
        corefile.write_text(configs.corefile(addresses, access(layout, "coredns")))
        processes.start("coredns", [str(programs.need("coredns")), "-conf", str(corefile)])
        started.append("coredns")
    if options.kwok and started:
        command = [
            str(programs.need("kwok")),
            f"--kubeconfig={access(layout, 'kwok')}",
            "--manage-nodes-with-label-selector=type=kwok",
            "--server-address=127.0.0.1:10248",
            "--node-lease-duration-seconds=40",
        ]
        processes.start("kwok", command)
        started.append("kwok")
    return started
