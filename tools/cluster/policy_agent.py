"""Watch pods, namespaces and network policies, and keep each node's packet filter by them.

Usage: python -m tools.cluster.policy_agent API_URL PKI_DIRECTORY NODE…
"""

from __future__ import annotations

import http.client
import json
import ssl
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tools.cluster import commands, network
from tools.cluster.addresses import plan
from tools.cluster.errors import ClusterError
from tools.cluster.policy_rules import Cluster, pods_from, ruleset

USER = "network-policies"
_PATHS = {
    "pods": "/api/v1/pods",
    "namespaces": "/api/v1/namespaces",
    "policies": "/apis/networking.k8s.io/v1/networkpolicies",
}
_WATCH_SECONDS = 300
_AGAIN_SECONDS = 0.5
# Changes come in bursts.
_GATHER_SECONDS = 0.05


class Store:
    """The objects of one kind, as the API server last told.

    Args:
        url: Where they are listed.
        context: How to speak to the API server.
        changed: Set when they change.
    """

    def __init__(self, url: str, context: ssl.SSLContext, changed: threading.Event) -> None:
        self._url = url
        self._context = context
        self._changed = changed
        self._objects: dict[str, dict[str, Any]] = {}
        self._lock = threading.Lock()
        self.known = False

    def items(self) -> list[dict[str, Any]]:
        """Return the objects that there are."""
        with self._lock:
            return list(self._objects.values())

    def follow(self) -> None:
        """List and watch for ever; what is known stays while the API server is away."""
        while True:
            try:
                self._once()
            except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
                print(f"{self._url}: {error}; again", file=sys.stderr, flush=True)
                time.sleep(_AGAIN_SECONDS)

    def _once(self) -> None:
        with self._open("") as answer:
            listed = json.load(answer)
        with self._lock:
            self._objects = {item["metadata"]["uid"]: item for item in listed["items"]}
        self.known = True
        self._changed.set()
        version = listed["metadata"]["resourceVersion"]
        query = f"?watch=1&resourceVersion={version}&timeoutSeconds={_WATCH_SECONDS}"
        with self._open(query) as answer:
            for line in answer:
                self._take(json.loads(line))

    def _open(self, query: str) -> Any:
        return urllib.request.urlopen(
            self._url + query, context=self._context, timeout=_WATCH_SECONDS + 30
        )

    def _take(self, event: dict[str, Any]) -> None:
        found = event["object"]
        if event["type"] == "ERROR":
            raise ValueError(found.get("message", "the watch ended"))
        with self._lock:
            if event["type"] == "DELETED":
                self._objects.pop(found["metadata"]["uid"], None)
            else:
                self._objects[found["metadata"]["uid"]] = found
        self._changed.set()


def apply(node: str, rules: str) -> None:
    """Put rules in the place of those that a node has.

    Raises:
        ClusterError: The kernel does not take them.
    """
    inside = network.inside(plan([node]).nodes[0])
    commands.run(*inside, "nft", "-f", "-", text=rules)


def changes(changed: threading.Event) -> Iterator[None]:
    """Yield whenever something changed, bursts as one."""
    while True:
        changed.wait()
        time.sleep(_GATHER_SECONDS)
        changed.clear()
        yield


def main() -> None:
    """Run from the command line."""
    url, directory, nodes = sys.argv[1], Path(sys.argv[2]), sys.argv[3:]
    context = ssl.create_default_context(cafile=str(directory / "ca.crt"))
    context.load_cert_chain(directory / f"{USER}.crt", directory / f"{USER}.key")
    changed = threading.Event()
    stores = {name: Store(url + path, context, changed) for name, path in _PATHS.items()}
    for store in stores.values():
        threading.Thread(target=store.follow, daemon=True).start()
    applied: dict[str, str] = {}
    for _ in changes(changed):
        if not all(store.known for store in stores.values()):
            continue
        names = {
            item["metadata"]["name"]: item["metadata"].get("labels", {})
            for item in stores["namespaces"].items()
        }
        cluster = Cluster(pods_from(stores["pods"].items()), names, stores["policies"].items())
        for node in nodes:
            rules = ruleset(node, cluster)
            if applied.get(node) == rules:
                continue
            try:
                apply(node, rules)
                applied[node] = rules
            except ClusterError as error:
                print(f"{node}: {error}\n{rules}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
