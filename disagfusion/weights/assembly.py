"""One version of a model in a cache: what a stage needs of it is made to be there."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from disagfusion.errors import FailedPreconditionError
from disagfusion.pipeline.model_files import (
    INDEX_NAME,
    MODULAR_INDEX_NAME,
    RECORD_NAME,
    ModelIndex,
    missing,
    read_index,
)
from disagfusion.pipeline.options import LoadOptions
from disagfusion.pipeline.stage_components import stage_components
from disagfusion.pipeline.stages import Stage
from disagfusion.weights.cache import Record, Tree
from disagfusion.weights.download import Downloader, verify
from disagfusion.weights.listing import Listing, RemoteFile, Source
from disagfusion.weights.report import Report
from disagfusion.weights.selection import index_files, select
from disagfusion.weights.space import free_bytes, make_room


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is wanted.

    Attributes:
        stage: Whose components; None for all.
        workflows: Only what these need; empty for all that the model can do.
        variant: Of the weights.
        verify: Read what is there already, and do not only look at sizes and times.
        offline: Ask no source; what is not there cannot be had.
        max_bytes: The cache may take so much; None for all that there is.
        owner: Who we are, for those who wait.
        delay: Seconds before the second attempt at something; doubled for each further one.
    """

    stage: Stage | None = None
    workflows: tuple[str, ...] = ()
    variant: str | None = None
    verify: bool = False
    offline: bool = False
    max_bytes: int | None = None
    owner: str = ""
    delay: float = 0.5


@dataclass(frozen=True, slots=True)
class Fetched:
    """What there is now.

    Attributes:
        path: The model's directory.
        version: Of the whole model.
        revision: As the source names it.
        nbytes: Of the stage's files.
        downloaded: Of these, what came just now.
    """

    path: Path
    version: str
    revision: str
    nbytes: int
    downloaded: int


def components_of(index: ModelIndex, request: Request) -> Sequence[str]:
    """Return the names of the components that are wanted."""
    if request.stage is None:
        return sorted(index.components)
    return stage_components(index, request.stage, request.workflows)


class Assembly:
    """A fetch that has the lock.

    Args:
        source: Where files come from.
        cache: The cache.
        tree: Where they go.
        listing: All files of the model.
        request: Which of them.
        report: Is told each phase.
    """

    def __init__(
        self,
        source: Source,
        cache: Path,
        tree: Tree,
        listing: Listing,
        request: Request,
        report: Report,
    ) -> None:
        self._source = source
        self._cache = cache
        self._tree = tree
        self._request = request
        self._report = report
        self._files = listing.files
        self._record = tree.record() or Record(
            source.name, listing.version, listing.revision, listing.files
        )
        self._downloaded = 0

    def run(self) -> Fetched:
        """Fetch what is missing.

        Raises:
            DisagfusionError: It cannot be had, or there is no room.
            OSError: The cache cannot be written to.
        """
        self._ensure(self._index_files())
        index = replace(read_index(str(self._tree.path), LoadOptions()), model=self._source.name)
        components = components_of(index, self._request)
        files = select(self._files, index, components, self._request.variant)
        nbytes = sum(file.size for file in files)
        self._report.phase("selected", components=list(components), files=len(files), bytes=nbytes)
        self._ensure(files)
        # When it was used last.
        os.utime(self._tree.path / RECORD_NAME)
        with contextlib.suppress(OSError):
            self._tree.partial.rmdir()
        record = self._record
        return Fetched(self._tree.path, record.version, record.revision, nbytes, self._downloaded)

    def _index_files(self) -> Collection[RemoteFile]:
        found = index_files(self._files)
        if not found.keys() & {INDEX_NAME, MODULAR_INDEX_NAME}:
            raise missing(self._source.name, f"has neither {INDEX_NAME} nor {MODULAR_INDEX_NAME}")
        return found.values()

    def _ensure(self, files: Iterable[RemoteFile]) -> None:
        wanted = [file for file in files if not self._is_there(file)]
        if not wanted:
            return
        downloader = Downloader(
            self._source,
            self._tree,
            delay=self._request.delay,
            progress=lambda nbytes: self._report.phase("downloading", bytes=nbytes),
        )
        for file in wanted:
            # It got there, but the process ended before it was noted.
            downloader.take_back(file)
        needed = downloader.missing_bytes(wanted)
        if needed:
            wanted = self._placed(wanted)
            make_room(self._cache, self._tree, needed, self._request.max_bytes, self._evicted)
            self._report.phase(
                "downloading", files=len(wanted), bytes=needed, free=free_bytes(self._cache)
            )
        for path, entry in downloader.fetch(wanted):
            self._record.files[path] = entry
            self._tree.write(self._record)
        self._downloaded += needed

    def _is_there(self, file: RemoteFile) -> bool:
        entry = self._record.files.get(file.path)
        if entry is None:
            return False
        problem = verify(self._tree, file.path, entry, fully=self._request.verify)
        if problem:
            self._report.phase("damaged", file=file.path, problem=problem)
            del self._record.files[file.path]
            self._tree.write(self._record)
            (self._tree.path / file.path).unlink(missing_ok=True)
        return not problem

    def _placed(self, files: Sequence[RemoteFile]) -> list[RemoteFile]:
        """Return the files with their places, which a record does not keep."""
        if all(file.place for file in files):
            return list(files)
        if self._request.offline:
            raise missing(
                self._source.name,
                f"{files[0].path} is not in {self._tree.path}, and no source is asked",
            )
        places = {file.path: file for file in self._source.resolve().files}
        gone = [file.path for file in files if file.path not in places]
        if gone:
            raise FailedPreconditionError(
                f"model {self._source.name}: {gone[0]} is not there any more",
                reason="MODEL_CHANGED",
            )
        self._files = tuple(places.values())
        return [places[file.path] for file in files]

    def _evicted(self, model: str, nbytes: int) -> None:
        self._report.phase("evicted", model=model, bytes=nbytes)
