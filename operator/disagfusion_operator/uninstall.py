"""Delete all pipelines and wait until they are gone, before the operator that drains them goes.

Usage: python -m disagfusion_operator.uninstall [--namespaces A,B] [--timeout SECONDS]
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Awaitable, Callable, Sequence

from disagfusion.errors import DisagfusionError, UnavailableError
from disagfusion_operator.api.reading import Metadata, read_metadata
from disagfusion_operator.k8s.client import KubernetesCluster
from disagfusion_operator.k8s.kinds import PIPELINE
from disagfusion_operator.k8s.port import Cluster

_LOOK_SECONDS = 2.0


async def delete_pipelines(
    cluster: Cluster,
    namespaces: Sequence[str],
    *,
    seconds: float,
    say: Callable[[str], None],
    now: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> list[str]:
    """Delete all pipelines, and those too that come up meanwhile.

    Args:
        cluster: Where they are.
        namespaces: In which; none: in all.
        seconds: For which is waited until the last is gone.
        say: Told what happens.
        now: A clock that never goes back.
        sleep: Waits.

    Returns:
        Names of pipelines that are still there.

    Raises:
        DisagfusionError: The API server refuses.
    """
    deadline = now() + seconds
    asked: set[str] = set()
    remaining: list[str] = []
    while True:
        try:
            found = await _pipelines(cluster, namespaces)
            remaining = [f"{one.namespace}/{one.name}" for one in found]
            if not found:
                return []
            for one in found:
                if one.uid not in asked:
                    say(f"deleting {one.namespace}/{one.name}")
                    await cluster.delete(PIPELINE, one.namespace, one.name, uid=one.uid)
                    asked.add(one.uid)
        except UnavailableError as error:
            say(f"the API server cannot be reached, trying again: {error}")
        if now() >= deadline:
            return remaining
        await sleep(_LOOK_SECONDS)


async def _pipelines(cluster: Cluster, namespaces: Sequence[str]) -> list[Metadata]:
    return [
        read_metadata(one)
        for namespace in namespaces or ("",)
        async for one in cluster.list(PIPELINE, namespace)
    ]


async def _run(namespaces: Sequence[str], seconds: float) -> list[str]:
    cluster = await KubernetesCluster.connect()
    try:
        clock = asyncio.get_running_loop().time
        return await delete_pipelines(cluster, namespaces, seconds=seconds, say=print, now=clock)
    finally:
        await cluster.aclose()


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--namespaces", default="", help="comma list; all where empty")
    parser.add_argument("--timeout", type=float, default=900, help="seconds")
    arguments = parser.parse_args()
    namespaces = [one for one in arguments.namespaces.split(",") if one]
    try:
        remaining = asyncio.run(_run(namespaces, arguments.timeout))
    except DisagfusionError as error:
        raise SystemExit(f"pipelines could not be deleted: {error}") from error
    if remaining:
        raise SystemExit(
            f"still there after {arguments.timeout:g} s: {', '.join(remaining)}; is the operator"
            " running? `kubectl describe dfp` says what they wait for"
        )


if __name__ == "__main__":
    main()
