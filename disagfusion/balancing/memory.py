"""What the balancer has learned, saved for the process after it."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from disagfusion.errors import DisagfusionError, FailedPreconditionError
from disagfusion.scheduling.document import Count
from disagfusion.scheduling.performance.documents import (
    ModelDocument,
    SealedDocument,
    from_json,
    to_json,
)
from disagfusion.scheduling.performance.exchange import SnapshotDocument
from disagfusion.scheduling.performance.model import PerformanceModel
from disagfusion.scheduling.performance.samples import SampleSnapshot
from disagfusion.scheduling.profile import Profile
from disagfusion.telemetry.logging import get_logger

LIMIT_BYTES = 64 * 1024 * 1024
"""Of a file that is read: some ten times what 20 stages and pools with all their samples take."""

_log = get_logger(__name__)


class MemoryDocument(SealedDocument):
    """What was learned, as it is saved.

    Attributes:
        kind: Tells this document from others.
        format: Of this document.
        pipeline: Whose it is.
        saved_at: Unix seconds.
        now: The same moment by the clock of all other times in here.
        gateway: Incarnation of the gateway that told of the samples; empty: of none.
        samples_cursor: Up to which of its samples they are in here.
        model: What was fitted, and the corrections.
        samples: For the next fit.
        parameters: Of the balancer, as calibration changed them.
    """

    kind: Literal["disagfusion.dev/balancer-memory"] = "disagfusion.dev/balancer-memory"
    format: Literal[1] = 1
    pipeline: str
    saved_at: float
    now: float
    gateway: str = ""
    samples_cursor: Count = 0
    model: ModelDocument
    samples: SnapshotDocument
    parameters: dict[str, float] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Memory:
    """What was learned, by the clock of the process that goes on with it.

    Attributes:
        model: What was fitted and still concerns the profile, and the corrections.
        samples: For the next fit.
        parameters: Of the balancer.
        gateway: See `MemoryDocument`.
        samples_cursor: See `MemoryDocument`.
    """

    model: PerformanceModel
    samples: SampleSnapshot
    parameters: dict[str, float]
    gateway: str
    samples_cursor: int


def load(
    file: Path, pipeline: str, profile: Profile, *, time: float, time_scale: float
) -> Memory | None:
    """Read what was saved; the balancer's clock begins at zero.

    A file that is damaged, or another pipeline's, is set aside as FILE.unusable, which is logged;
    so is what concerns stages and pools that are gone, or that took another number of accelerators.

    Args:
        file: As `save` wrote it.
        pipeline: Whose it must be.
        profile: Of now.
        time: Unix seconds.
        time_scale: Real seconds for one of the balancer's.

    Returns:
        None where there is nothing that can be used.
    """
    try:
        with file.open("rb") as opened:
            text = opened.read(LIMIT_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        _log.warning("what was learned cannot be read", file=str(file), problem=error.strerror)
        return None
    try:
        document = _checked(text, pipeline, file.name)
    except DisagfusionError as error:
        _log.warning("what was learned is not used", file=str(file), problem=error.message)
        with contextlib.suppress(OSError):
            file.replace(file.with_name(f"{file.name}.unusable"))
        return None
    since = max(0.0, time - document.saved_at) / time_scale
    found = _fitting(_earlier(document, document.now + since), profile)
    _log.info(
        "goes on with what was learned",
        saved_seconds_ago=round(max(0.0, time - document.saved_at), 1),
        version=found.model.version,
        samples=len(found.samples.samples),
        parameters=found.parameters,
    )
    return found


def save(file: Path, document: MemoryDocument) -> None:
    """Write what was learned, wholly or not at all.

    Raises:
        OSError: It cannot be written; what was there stays.
    """
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as opened:
            opened.write(to_json(document.sealed()))
            opened.flush()
            os.fsync(opened.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def _checked(text: bytes, pipeline: str, name: str) -> MemoryDocument:
    if len(text) > LIMIT_BYTES:
        raise FailedPreconditionError(f"{name} has more than {LIMIT_BYTES} bytes")
    document = from_json(MemoryDocument, text, name=name)
    document.verify()
    document.model.verify()
    if document.pipeline != pipeline:
        raise FailedPreconditionError(
            f"{name} is of the pipeline {document.pipeline!r}, not of {pipeline!r}"
        )
    return document


def _earlier(document: MemoryDocument, by: float) -> Memory:
    """Return the same with all times counted from another zero."""
    snapshot = document.samples.snapshot()
    samples = SampleSnapshot(
        tuple(replace(sample, at=sample.at - by) for sample in snapshot.samples),
        {pair: at - by for pair, at in snapshot.regimes.items()},
    )
    model = PerformanceModel.from_document(document.model)
    pairs = {
        pair: fitted.model_copy(
            update={
                "fitted_at": fitted.fitted_at - by,
                "confirmed_at": fitted.confirmed_at - by,
            }
        )
        for pair, fitted in model.pairs.items()
    }
    return Memory(
        PerformanceModel(model.profile, pairs, model.corrections, version=model.version),
        samples,
        dict(document.parameters),
        document.gateway,
        document.samples_cursor,
    )


def _fitting(memory: Memory, profile: Profile) -> Memory:
    """Return what still concerns a profile, which need not be the one of then."""
    then = memory.model
    alive = {
        (stage, pool)
        for stage, costs in profile.stages.items()
        for pool in costs.pools
        if _accelerators(then.profile, stage, pool) == _accelerators(profile, stage, pool)
    }
    samples = SampleSnapshot(
        tuple(sample for sample in memory.samples.samples if sample.pair in alive),
        {pair: at for pair, at in memory.samples.regimes.items() if pair in alive},
    )
    gone = {sample.pair for sample in memory.samples.samples} | set(then.pairs)
    if gone - alive:
        names = sorted(f"{stage} on {pool}" for stage, pool in gone - alive)
        _log.warning("what was learned of these is given up: the profile has changed", of=names)
    pairs = {pair: fitted for pair, fitted in then.pairs.items() if pair in alive}
    model = PerformanceModel(profile, pairs, version=then.version)
    # A correction is worth something only beside the prediction that it corrected.
    corrections = {
        pair: factor
        for pair, factor in then.corrections.items()
        if pair in alive and then.basis(*pair).seconds == model.basis(*pair).seconds
    }
    return replace(memory, model=model.with_corrections(corrections), samples=samples)


def _accelerators(profile: Profile, stage: str, pool: str) -> int | None:
    """Return how many a replica takes; None where it may not be there."""
    costs = profile.stages.get(stage)
    where = None if costs is None else costs.pools.get(pool)
    return None if where is None else where.accelerators
