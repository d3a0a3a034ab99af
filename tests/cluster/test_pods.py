"""Real pods on real nodes: containers, network, names, limits, and how they end."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import app as app_module
from tests.cluster.testing import APP, IMAGE, PYTHON, Cluster, Namespace, archive, container
from tools.cluster import archives, images
from tools.cluster.archives import File
from tools.cluster.errors import ClusterError

SELECTOR = "app=app"
USER = 65532


def deployment(replicas: int) -> dict[str, Any]:
    labels = {"app": "app"}
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "DoNotSchedule",
        # Fake nodes and pods of the old template are not counted.
        "nodeTaintsPolicy": "Honor",
        "matchLabelKeys": ["pod-template-hash"],
        "labelSelector": {"matchLabels": labels},
    }
    main = container(
        readinessProbe={"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 1},
        lifecycle={"preStop": {"exec": {"command": ["sh", "-c", "echo preStop > /proc/1/fd/1"]}}},
        resources={
            "requests": {"cpu": "50m", "memory": "32Mi"},
            "limits": {"memory": "256Mi"},
        },
        volumeMounts=[{"name": "shm", "mountPath": "/dev/shm"}],
    )
    pod = {
        "terminationGracePeriodSeconds": 15,
        "topologySpreadConstraints": [spread],
        "containers": [main],
        "volumes": [{"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "app"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def service(name: str, **spec: Any) -> dict[str, Any]:
    ports = [{"name": "echo", "port": 7000}]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": "app"}, "ports": ports, **spec},
    }


@pytest.fixture(scope="module")
def app(cluster: Cluster, namespace: Namespace) -> Namespace:
    """The app in one pod on each of two nodes, with a service and a headless one."""
    cluster.load(archive(cluster.layout))
    namespace.apply(deployment(2), service("app"), service("app-headless", clusterIP="None"))
    namespace("rollout", "status", "deployment/app", "--timeout=120s")
    return namespace


def names(app: Namespace) -> list[str]:
    return [str(pod["metadata"]["name"]) for pod in app.pods(SELECTOR)]


def ask(app: Namespace, pod: str, host: str) -> str:
    """Return what the app answers that a pod asks."""
    return app("exec", pod, "--", PYTHON, APP, "ask", host).strip()


def python(app: Namespace, pod: str, code: str) -> str:
    return app("exec", pod, "--", PYTHON, "-c", code).strip()


@pytest.mark.smoke
def test_each_pod_is_on_a_node_of_its_own(app: Namespace, cluster: Cluster) -> None:
    assert sorted(pod["spec"]["nodeName"] for pod in app.pods(SELECTOR)) == cluster.nodes[:2]


@pytest.mark.smoke
def test_a_pod_reaches_a_pod_on_another_node_under_its_own_address(app: Namespace) -> None:
    first, second = app.pods(SELECTOR)
    answer = ask(app, first["metadata"]["name"], second["status"]["podIP"])
    assert answer == f"{second['metadata']['name']} {first['status']['podIP']} hello"


def test_logs_and_the_user_that_the_program_runs_as(app: Namespace) -> None:
    pod = names(app)[0]
    assert "serving" in app("logs", pod).splitlines()
    assert python(app, pod, "import os; print(os.getuid())") == str(USER)


@pytest.mark.smoke
def test_a_service_leads_to_both_pods_by_address_and_by_name(
    app: Namespace, until: Callable[..., None]
) -> None:
    pods, address = names(app), app.json("get", "service", "app")["spec"]["clusterIP"]
    code = (
        f"import sys; sys.path.insert(0, {str(Path(APP).parent)!r}); from app import ask\n"
        f"for host in ({address!r}, 'app', 'app.{app.name}.svc.cluster.local'):\n"
        "    print(*sorted({ask(host).split()[0] for _ in range(20)}))"
    )

    def leads() -> bool:
        try:
            return python(app, pods[0], code).splitlines() == [" ".join(pods)] * 3
        except ClusterError:
            return False

    # Pods are ready before every node's rules and the name server know of it.
    until("the service leads to both pods", 30, leads)


def test_a_headless_service_names_every_pod(app: Namespace) -> None:
    code = (
        "import socket\n"
        "found = {a[4][0] for a in socket.getaddrinfo('app-headless', 7000)}\n"
        "print(*sorted(found))"
    )
    addresses = sorted(pod["status"]["podIP"] for pod in app.pods(SELECTOR))
    assert python(app, names(app)[0], code) == " ".join(addresses)


def test_the_machine_reaches_pods_and_services(app: Namespace, cluster: Cluster) -> None:
    assert cluster.own, "another's cluster has its own network"
    pod = app.pods(SELECTOR)[0]
    assert app_module.ask(pod["status"]["podIP"]).startswith(pod["metadata"]["name"])
    address = app.json("get", "service", "app")["spec"]["clusterIP"]
    assert app_module.ask(address).split()[0] in names(app)


def test_a_pod_speaks_to_the_api_server_with_its_own_token(app: Namespace) -> None:
    code = (
        "import ssl, urllib.request as u\n"
        "d = '/var/run/secrets/kubernetes.io/serviceaccount/'\n"
        "token = {'Authorization': 'Bearer ' + open(d + 'token').read()}\n"
        "context = ssl.create_default_context(cafile=d + 'ca.crt')\n"
        "request = u.Request('https://kubernetes.default.svc/version', headers=token)\n"
        "print(u.urlopen(request, context=context, timeout=10).read().decode())"
    )
    assert json.loads(python(app, names(app)[0], code))["gitVersion"].startswith("v1.")


def test_nothing_outside_of_the_machine_is_reachable(app: Namespace, cluster: Cluster) -> None:
    assert cluster.own, "another's cluster has its own network"
    code = (
        "import socket\n"
        "try:\n"
        "    socket.create_connection(('198.51.100.1', 80), 3)\n"
        "except OSError as error:\n"
        "    print('refused', error)"
    )
    assert python(app, names(app)[0], code).startswith("refused")


def test_shared_memory_has_the_size_that_was_asked_for(app: Namespace) -> None:
    code = "import os; s = os.statvfs('/dev/shm'); print(s.f_blocks * s.f_frsize // 2**20)"
    assert python(app, names(app)[0], code) == "64"


def test_the_root_file_system_is_read_only(app: Namespace) -> None:
    code = (
        "import errno\n"
        "try:\n"
        "    open('/x', 'w')\n"
        "except OSError as error:\n"
        "    print(errno.errorcode[error.errno])"
    )
    assert python(app, names(app)[0], code) == "EROFS"


def test_too_much_memory_ends_the_container(app: Namespace, until: Callable[..., None]) -> None:
    greedy = container(
        command=[PYTHON, "-c", "print(len(bytearray(200 << 20)))"],
        resources={"limits": {"memory": "64Mi"}},
    )
    app.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "greedy"},
            "spec": {"restartPolicy": "Never", "containers": [greedy]},
        }
    )

    def reason() -> str | None:
        statuses = app.json("get", "pod", "greedy")["status"].get("containerStatuses", [])
        ended = [status["state"].get("terminated", {}).get("reason") for status in statuses]
        return ended[0] if ended else None

    until("the end of the greedy pod", 60, lambda: reason() is not None)
    assert reason() == "OOMKilled"


@contextmanager
def forwarded(app: Namespace, target: str, port: int) -> Iterator[int]:
    """Forward a port of this machine to a pod or service and give its number."""
    command = [
        str(app.kubectl.program),
        f"--kubeconfig={app.kubectl.kubeconfig}",
        *("-n", app.name, "port-forward", target, f":{port}"),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            # Forwarding from 127.0.0.1:41234 -> 7000
            yield int(process.stdout.readline().split()[2].rpartition(":")[2])
        finally:
            process.terminate()


def test_a_port_can_be_forwarded(app: Namespace) -> None:
    pod = names(app)[0]
    with forwarded(app, f"pod/{pod}", 7000) as port:
        assert app_module.ask("127.0.0.1", port) == f"{pod} 127.0.0.1 hello"


def test_an_image_that_is_there_is_not_imported_again(cluster: Cluster, app: Namespace) -> None:
    done = images.load(cluster.layout, cluster.nodes, [archive(cluster.layout)])
    assert [(found.node, found.image, found.fresh) for found in done] == [
        (node, IMAGE, False) for node in cluster.nodes
    ]


def test_an_image_that_was_built_anew_takes_the_place_of_the_old(
    cluster: Cluster, tmp_path: Path
) -> None:
    assert cluster.own, "another's cluster gets its images otherwise"
    name, path, node = "localhost/rebuilt:1", tmp_path / "rebuilt.tar", cluster.nodes[0]
    for content in (b"first", b"second"):
        layer = archives.layer({"content": File(content)})
        built = archives.write(path, name, [layer], {})
        fresh = [images.load(cluster.layout, [node], [path])[0].fresh for _ in range(2)]
        assert fresh == [True, False]
    references = images.parse_references(images.ctr(cluster.layout, node, "images", "ls"))
    target = references.pop(name)
    assert [other for other, digest in references.items() if digest == target] == [built.digest]
    images.ctr(cluster.layout, node, "images", "rm", name, built.digest)


def test_a_claim_gets_a_volume_that_every_user_may_write_to(app: Namespace) -> None:
    app.apply(
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data"},
            "spec": {
                "accessModes": ["ReadWriteMany"],
                "resources": {"requests": {"storage": "1Gi"}},
            },
        },
        *(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {"name": name, "labels": {"volume": name}},
                "spec": {
                    "restartPolicy": "Never",
                    "containers": [
                        container(
                            command=[PYTHON, "-c", code],
                            volumeMounts=[{"name": "data", "mountPath": "/data"}],
                        )
                    ],
                    "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
                },
            }
            for name, code in (
                ("writer", "open('/data/greeting', 'w').write('hello')"),
                (
                    "reader",
                    "import os, time\n"
                    "while not os.path.exists('/data/greeting'):\n    time.sleep(0.1)\n"
                    "print(open('/data/greeting').read())",
                ),
            )
        ),
    )
    app(
        "wait",
        "--for=jsonpath={.status.phase}=Succeeded",
        "pod/writer",
        "pod/reader",
        "--timeout=60s",
    )
    assert app("logs", "reader").strip() == "hello"


def test_a_container_that_crashes_is_started_again(
    app: Namespace, until: Callable[..., None]
) -> None:
    pod = names(app)[0]
    # The first process takes SIGTERM to end, and its pod is to go on.
    python(app, pod, f"import os; os.kill(1, {int(signal.SIGTERM)})")

    def restarted() -> bool:
        status = app.json("get", "pod", pod)["status"]["containerStatuses"][0]
        return bool(status["restartCount"] == 1 and status["ready"])

    until("its restart", 60, restarted)


def test_a_pod_ends_in_good_order(app: Namespace) -> None:
    pod = names(app)[-1]
    access = f"--kubeconfig={app.kubectl.kubeconfig}"
    follow = [str(app.kubectl.program), access, "-n", app.name, "logs", "-f", pod]
    with subprocess.Popen(follow, stdout=subprocess.PIPE, text=True) as log:
        assert log.stdout is not None
        assert log.stdout.readline().strip() == "serving"
        app("delete", "pod", pod, "--timeout=30s")
        lines, _ = log.communicate(timeout=30)
    assert lines.split() == ["preStop", "drained"]


def test_a_new_template_is_rolled_out(app: Namespace) -> None:
    before = set(names(app))
    app("set", "env", "deployment/app", "VERSION=2")
    app("rollout", "status", "deployment/app", "--timeout=120s")
    after = set(names(app))
    assert len(after) == 2
    assert not before & after
