"""The pods of a namespace, as the API server's watch tells of them."""

from __future__ import annotations

import json
import os
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kubernetes import client, config, watch
from urllib3.exceptions import HTTPError

_METRICS_PORT = 9464


class PodWatch:
    """Follows pods: how many accelerators they hold, and where their metrics are.

    A pod holds its accelerators from when it was made until it is gone or has ended, also while it
    is ending: so it counts whatever the scheduler does.

    Args:
        kubeconfig: Access to the cluster.
        namespace: Whose pods.
        resource: The accelerator.
        targets: File for Prometheus' `file_sd_configs`.

    Attributes:
        most_held: Accelerators held at a time at most.
        seen: Pods that held some.
    """

    def __init__(self, kubeconfig: Path, namespace: str, resource: str, targets: Path) -> None:
        access = config.new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call]
        self._api = client.CoreV1Api(access)
        self._namespace = namespace
        self._resource = resource
        self._targets = targets
        self._pods: dict[str, int] = {}
        self._addresses: dict[str, str] = {}
        self._names: set[str] = set()
        # The client library has no types.
        self._watch: Any = watch.Watch()  # type: ignore[no-untyped-call]
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ended = threading.Event()
        self.most_held = 0

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
        """End; the thread ends with the next event or the process."""
        self._ended.set()
        self._watch.stop()

    def _run(self) -> None:
        while not self._ended.is_set():
            # A watch may break; the next one begins with all pods that there are.
            with suppress(HTTPError, client.ApiException):
                stream = self._watch.stream(self._api.list_namespaced_pod, self._namespace)
                for event in stream:
                    self._take(event["type"], event["raw_object"])

    def _take(self, kind: str, pod: dict[str, Any]) -> None:
        uid, status = pod["metadata"]["uid"], pod.get("status", {})
        if kind == "DELETED" or status.get("phase") in ("Succeeded", "Failed"):
            self._pods.pop(uid, None)
            self._addresses.pop(uid, None)
        else:
            held = sum(
                int(container.get("resources", {}).get("limits", {}).get(self._resource, 0))
                for container in pod["spec"]["containers"]
            )
            self._pods[uid] = held
            if held:
                self._names.add(uid)
            if address := status.get("podIP"):
                self._addresses[uid] = address
        self.most_held = max(self.most_held, sum(self._pods.values()))
        self._write()

    def _write(self) -> None:
        found = [f"{address}:{_METRICS_PORT}" for address in sorted(self._addresses.values())]
        fresh = self._targets.with_name(f".{self._targets.name}")
        fresh.write_text(json.dumps([{"targets": found}]))
        os.replace(fresh, self._targets)
