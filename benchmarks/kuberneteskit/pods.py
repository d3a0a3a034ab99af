"""The pods of a namespace, as the API server's watch tells of them."""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kubernetes import client, config, watch
from urllib3.exceptions import HTTPError

_METRICS_PORT = 9464
_STAGE = "disagfusion.dev/stage"
_AGAIN = 0.2


class PodWatch:
    """Follows pods: how many accelerators they hold, and where their metrics are.

    A pod holds its accelerators from when it was made until it is gone or has ended, also while it
    is ending: so it counts whatever the scheduler does.

    Args:
        kubeconfig: Access to the cluster.
        namespace: Whose pods.
        resource: The accelerator.
        targets: File for Prometheus' `file_sd_configs`; None: nobody scrapes them.

    Attributes:
        most_held: Accelerators held at a time at most.
        most_ready: Stage → pods that were ready at a time at most.
    """

    def __init__(
        self, kubeconfig: Path, namespace: str, resource: str, targets: Path | None = None
    ) -> None:
        access = config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]
        self._api = client.CoreV1Api(access)
        self._namespace = namespace
        self._resource = resource
        self._targets = targets
        self._pods: dict[str, dict[str, Any]] = {}
        self._names: set[str] = set()
        # The client library has no types.
        self._watch: Any = watch.Watch()  # type: ignore[no-untyped-call]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ended = threading.Event()
        self._failure: Exception | None = None
        self.most_held = 0
        self.most_ready: dict[str, int] = {}

    @property
    def seen(self) -> int:
        """Pods that held accelerators, in all."""
        return len(self._names)

    def __enter__(self) -> Self:
        """Begin."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End; the thread ends with the next event or the process.

        Raises:
            RuntimeError: It fell silent before: what it has counted is too little.
        """
        self._ended.set()
        self._watch.stop()
        if self._failure is not None and error is None:
            raise RuntimeError("pods were not followed to the end") from self._failure

    def _run(self) -> None:
        try:
            while not self._ended.is_set():
                # A watch may break; the next one begins with all pods that there are.
                try:
                    self._follow()
                except (HTTPError, client.ApiException):
                    self._ended.wait(_AGAIN)
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread is over
            # When it was told to end, its connection is cut.
            if not self._ended.is_set():
                self._failure = error

    def _follow(self) -> None:
        found: Any = self._api.list_namespaced_pod(self._namespace, _preload_content=False)
        listed = json.loads(found.data)
        self._pods = {one["metadata"]["uid"]: one for one in listed["items"]}
        self._count()
        stream = self._watch.stream(
            self._api.list_namespaced_pod,
            self._namespace,
            resource_version=listed["metadata"]["resourceVersion"],
        )
        for event in stream:
            pod = event["raw_object"]
            if event["type"] == "DELETED":
                self._pods.pop(pod["metadata"]["uid"], None)
            else:
                self._pods[pod["metadata"]["uid"]] = pod
            self._count()

    def _count(self) -> None:
        lasting = {uid: pod for uid, pod in self._pods.items() if not _over(pod)}
        held = {uid: self._held(pod) for uid, pod in lasting.items()}
        self._names.update(uid for uid, count in held.items() if count)
        self.most_held = max(self.most_held, sum(held.values()))
        ready = Counter(
            pod["metadata"]["labels"][_STAGE]
            for uid, pod in lasting.items()
            if held[uid] and _ready(pod)
        )
        for stage, count in ready.items():
            self.most_ready[stage] = max(count, self.most_ready.get(stage, 0))
        if self._targets is not None:
            self._write(self._targets, lasting)

    def _held(self, pod: dict[str, Any]) -> int:
        return sum(
            int(container.get("resources", {}).get("limits", {}).get(self._resource, 0))
            for container in pod["spec"]["containers"]
        )

    def _write(self, targets: Path, pods: dict[str, dict[str, Any]]) -> None:
        addresses = {pod.get("status", {}).get("podIP") for pod in pods.values()} - {None}
        found = [f"{address}:{_METRICS_PORT}" for address in sorted(addresses)]
        fresh = targets.with_name(f".{targets.name}")
        fresh.write_text(json.dumps([{"targets": found}]))
        os.replace(fresh, targets)


def _over(pod: dict[str, Any]) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def _ready(pod: dict[str, Any]) -> bool:
    conditions = pod.get("status", {}).get("conditions", ())
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
