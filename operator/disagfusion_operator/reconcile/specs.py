"""Specifications, read once for each change of them."""

from __future__ import annotations

from disagfusion.errors import InvalidArgumentError
from disagfusion_operator.api.pipeline import Spec
from disagfusion_operator.api.reading import read_pipeline
from disagfusion_operator.k8s.port import Object
from disagfusion_operator.reconcile.cache import Cache
from disagfusion_operator.scaling.view import Key


class Specs:
    """Reads specifications.

    Args:
        cache: Has the pipelines.
    """

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._known: dict[Key, tuple[str, int, Spec | InvalidArgumentError]] = {}
        self._last: dict[Key, tuple[str, Spec]] = {}
        self._readable: tuple[int, tuple[Key, ...]] = (-1, ())

    def of(self, key: Key, resource: Object) -> Spec | InvalidArgumentError:
        """Return a pipeline's specification, or what is wrong with it."""
        metadata = resource["metadata"]
        stamp = (metadata.get("uid", ""), metadata.get("generation", 0))
        known = self._known.get(key)
        if known is not None and known[:2] == stamp:
            return known[2]
        try:
            spec = read_pipeline(resource)[1]
        except InvalidArgumentError as error:
            self._known[key] = (*stamp, error)
            return error
        self._known[key] = (*stamp, spec)
        self._last[key] = stamp[0], spec
        return spec

    def last(self, key: Key) -> tuple[str, Spec] | None:
        """Return uid and last specification that could be understood of a pipeline.

        It may be gone. None: nothing is known of it.
        """
        return self._last.get(key)

    def readable(self) -> tuple[Key, ...]:
        """Return the pipelines that can be understood and are not about to go."""
        version = self._cache.pipelines_version
        if self._readable[0] != version:
            found = []
            for key in self._cache.pipelines():
                resource = self._cache.pipeline(key)
                if resource is None or "deletionTimestamp" in resource["metadata"]:
                    continue
                if not isinstance(self.of(key, resource), InvalidArgumentError):
                    found.append(key)
            self._readable = version, tuple(found)
        return self._readable[1]

    def forget(self, key: Key) -> None:
        """Forget a pipeline."""
        self._known.pop(key, None)
        self._last.pop(key, None)
