"""An API server and nothing else: enough for a definition, and no root is needed.

With KUBECONFIG set that cluster is used; with KUBEBUILDER_ASSETS its programs are.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config

from tools.cluster import programs
from tools.cluster.kubectl import Kubectl
from tools.cluster.layout import ROOT
from tools.cluster.pki import Authority, kubeconfig, new_key, write_private

CHART = ROOT / "charts" / "disagfusion"
DEFINITION = CHART / "definitions" / "diffusionpipelines.yaml"
LOOPBACK = IPv4Address("127.0.0.1")
GROUP = ("disagfusion.dev", "v1alpha1")
PLURAL = "diffusionpipelines"

Helm = Callable[..., str]


class RefusedError(Exception):
    """The API server's words."""


@dataclass(frozen=True)
class Api:
    """An API server that knows pipelines, and a namespace of one's own there."""

    client: client.ApiClient
    namespace: str

    def create(self, manifest: dict[str, Any], *, dry: bool = True) -> dict[str, Any]:
        """Create a pipeline.

        Raises:
            RefusedError: It is not accepted.
        """
        return self._call("create_namespaced_custom_object", body=manifest, dry=dry)

    def replace(self, manifest: dict[str, Any], *, dry: bool = True) -> dict[str, Any]:
        """Change one that is there.

        Raises:
            RefusedError: It is not accepted.
        """
        name = manifest["metadata"]["name"]
        return self._call("replace_namespaced_custom_object", name=name, body=manifest, dry=dry)

    def delete(self, name: str) -> None:
        """Delete a pipeline."""
        objects = client.CustomObjectsApi(self.client)
        objects.delete_namespaced_custom_object(*GROUP, self.namespace, PLURAL, name)

    def _call(self, verb: str, *, dry: bool, **arguments: Any) -> dict[str, Any]:
        group, version = GROUP
        place = {"group": group, "version": version, "plural": PLURAL, "namespace": self.namespace}
        extra = {"dry_run": "All"} if dry else {}
        call = getattr(client.CustomObjectsApi(self.client), verb)
        try:
            found: dict[str, Any] = call(**place, **arguments, **extra, field_validation="Strict")
        except client.ApiException as error:
            raise RefusedError(json.loads(error.body)["message"]) from error
        return found


def free_port() -> int:
    """Return a port of loopback that nobody has."""
    with socket.socket() as one:
        one.bind((str(LOOPBACK), 0))
        return int(one.getsockname()[1])


def _wait(what: str, process: subprocess.Popen[bytes], log: Path, probe: Any) -> None:
    deadline = time.monotonic() + 90
    while not probe():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"{what} did not start:\n{log.read_text()[-3000:]}", pytrace=False)
        time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _credentials(directory: Path, port: int) -> Path:
    authority = Authority("tests")
    (directory / "ca.crt").write_bytes(authority.pair.certificate)
    hosts, addresses = ["localhost", "kubernetes.default.svc"], [LOOPBACK]
    authority.server("kube-apiserver", hosts, addresses).write(directory, "apiserver")
    write_private(directory / "service-accounts.key", new_key())
    path = directory / "kubeconfig"
    admin = authority.client("admin", "system:masters")
    url = f"https://{LOOPBACK}:{port}"
    write_private(path, kubeconfig(url, authority.pair.certificate, admin).encode())
    return path


def _start(directory: Path, stack: ExitStack) -> Path:
    """Start etcd and the API server and return the access file."""
    etcd_port, peer_port, port = free_port(), free_port(), free_port()
    etcd, peer = (f"http://{LOOPBACK}:{number}" for number in (etcd_port, peer_port))
    access = _credentials(directory, port)
    kubectl = Kubectl(access)
    commands = {
        "etcd": [
            str(programs.need("etcd")),
            f"--data-dir={directory / 'etcd'}",
            f"--listen-client-urls={etcd}",
            f"--advertise-client-urls={etcd}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
        ],
        "kube-apiserver": [
            str(programs.need("kube-apiserver")),
            f"--etcd-servers={etcd}",
            f"--bind-address={LOOPBACK}",
            f"--advertise-address={LOOPBACK}",
            "--endpoint-reconciler-type=none",
            f"--secure-port={port}",
            f"--tls-cert-file={directory / 'apiserver.crt'}",
            f"--tls-private-key-file={directory / 'apiserver.key'}",
            f"--cert-dir={directory}",
            f"--client-ca-file={directory / 'ca.crt'}",
            "--authorization-mode=RBAC",
            f"--service-account-key-file={directory / 'service-accounts.key'}",
            f"--service-account-signing-key-file={directory / 'service-accounts.key'}",
            "--service-account-issuer=https://kubernetes.default.svc",
            "--service-cluster-ip-range=10.96.0.0/16",
        ],
    }
    for name, command in commands.items():
        log = directory / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        stack.callback(process.wait, 30)
        stack.callback(process.terminate)
        if name == "etcd":
            _wait(name, process, log, lambda: _answers(f"{etcd}/health"))
        else:
            _wait(name, process, log, lambda: kubectl.succeeds("get", "--raw", "/readyz"))
    return access


@pytest.fixture(scope="session")
def access(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return the access file of an API server that knows pipelines."""
    with ExitStack() as stack:
        given = os.environ.get("KUBECONFIG")
        path = Path(given) if given else _start(tmp_path_factory.mktemp("api"), stack)
        install(path)
        yield path


def install(path: Path) -> None:
    """Install the definition, or bring it up to date, and wait until it is served."""
    kubectl = Kubectl(path)
    own = ("--server-side", "--force-conflicts", "--field-manager=tests")
    name = kubectl("apply", *own, "-o", "name", "-f", str(DEFINITION)).strip()
    kubectl("wait", "--for=condition=Established", "--timeout=30s", name)


@pytest.fixture(scope="session")
def api(access: Path) -> Iterator[Api]:
    with config.new_client_from_config(str(access)) as found:
        core = client.CoreV1Api(found)
        name = f"crd-{uuid.uuid4().hex[:6]}"
        core.create_namespace({"metadata": {"name": name}})
        try:
            yield Api(found, name)
        finally:
            core.delete_namespace(name)


@pytest.fixture(scope="session")
def kubectl(access: Path) -> Kubectl:
    return Kubectl(access)


@pytest.fixture(scope="session")
def helm(access: Path, tmp_path_factory: pytest.TempPathFactory) -> Helm:
    home = tmp_path_factory.mktemp("helm")
    places = {f"HELM_{what}_HOME": str(home) for what in ("CACHE", "CONFIG", "DATA")}
    environment = os.environ | places | {"KUBECONFIG": str(access)}

    def run(*arguments: str, values: dict[str, Any] | None = None) -> str:
        given = ["--values", "-"] if values is not None else []
        done = subprocess.run(
            [str(programs.need("helm")), *arguments, *given],
            input=yaml.safe_dump(values),
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def space(kubectl: Kubectl) -> Iterator[Callable[[str], str]]:
    """Make namespaces that go away at the end: `space(prefix)` returns a name."""
    made: list[str] = []

    def make(prefix: str) -> str:
        made.append(f"{prefix}-{uuid.uuid4().hex[:6]}")
        kubectl("create", "namespace", made[-1])
        return made[-1]

    yield make
    for name in made:
        kubectl("delete", "namespace", name, "--wait=false")
