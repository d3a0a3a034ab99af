"""Fetching what a stage needs, from the question to the source to the directory that is ready."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

from disagfusion.pipeline.model_files import missing, read_index
from disagfusion.pipeline.options import LoadOptions
from disagfusion.weights.assembly import Assembly, Fetched, Request, components_of
from disagfusion.weights.cache import Record, Tree, remember, remembered, unwritable
from disagfusion.weights.directory import DirectorySource
from disagfusion.weights.errors import UnreachableError
from disagfusion.weights.hub import HubSource, is_commit, version_of
from disagfusion.weights.listing import Listing, Source
from disagfusion.weights.report import Report
from disagfusion.weights.selection import select

_RESOLVE_ATTEMPTS = 3


def fetch(source: Source, cache: Path, request: Request, report: Report) -> Fetched:
    """See to it that a stage's files are in a node's cache.

    Args:
        source: Where they come from.
        cache: The cache's directory.
        request: Which files, and how.
        report: Is told each phase.

    Raises:
        DisagfusionError: They cannot be had, or cannot be kept.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
        listing = _resolve(source, cache, request, report)
        tree = Tree(cache, source.name, listing.version)
        tree.create()
    except OSError as error:
        raise unwritable(cache, error) from error
    report.phase("resolved", version=listing.version, revision=listing.revision)
    owner = request.owner or f"process {os.getpid()}"
    with tree.locked(owner, lambda it: report.phase("waiting", on=it)), tree.held():
        try:
            return Assembly(source, cache, tree, listing, request, report).run()
        except OSError as error:
            raise unwritable(tree.path, error) from error


def use_in_place(source: DirectorySource, request: Request, report: Report) -> Fetched:
    """See to it that a directory has what a stage needs; nothing is copied.

    Raises:
        DisagfusionError: It has not.
    """
    listing = source.resolve()
    report.phase("resolved", version=listing.version, revision=listing.revision)
    index = replace(read_index(str(source.directory), LoadOptions()), model=source.name)
    components = components_of(index, request)
    files = select(listing.files, index, components, request.variant)
    nbytes = sum(file.size for file in files)
    report.phase("selected", components=list(components), files=len(files), bytes=nbytes)
    return Fetched(source.directory, listing.version, listing.revision, nbytes, 0)


def _resolve(source: Source, cache: Path, request: Request, report: Report) -> Listing:
    revision = getattr(source, "revision", "")
    known: Record | None = None
    if isinstance(source, HubSource) and is_commit(revision):
        # It means the same for ever: nobody has to be asked.
        known = Tree(cache, source.name, version_of(revision)).record()
    elif request.offline:
        known = remembered(cache, source.name, revision)
    if known is not None:
        return _listed(known)
    if request.offline:
        raise missing(source.name, f"is not in {cache}, and no source is asked")
    problem = ""
    for attempt in range(_RESOLVE_ATTEMPTS):
        if attempt:
            time.sleep(request.delay * 2.0**attempt)
        try:
            listing = source.resolve()
        except OSError as error:
            problem = str(error)
            report.phase("retry", problem=problem)
        else:
            remember(cache, source.name, revision, listing)
            return listing
    known = remembered(cache, source.name, revision)
    if known is None:
        raise UnreachableError(f"model {source.name}: {problem}")
    report.phase("offline", problem=problem, version=known.version)
    return _listed(known)


def _listed(record: Record) -> Listing:
    return Listing(record.version, record.revision, record.listing)
