"""One case from end to end; used by the tests and by `tools/families.py`.

Each stage loads from a directory that has only its own part of the model.
"""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from disagfusion.pipeline.stages import Stage
from disagfusion.weights.assembly import Request
from disagfusion.weights.directory import DirectorySource
from disagfusion.weights.fetch import fetch
from disagfusion.weights.report import Report

from .cases import Case
from .client import Workers

STAGES = ("encoder", "dit", "decoder")


@dataclass
class Outcome:
    """What came out of a case."""

    split: np.ndarray
    modular: np.ndarray | None
    modular_error: str
    classic: np.ndarray | None
    insensitive: list[str]
    reports: dict[str, dict[str, Any]]
    modules_in_reference: list[str]


def run_case(workers: Workers, case: Case, models: Path, scratch: Path) -> Outcome:
    """Run a case split in three, unsplit and classic."""
    model = models / case.model
    if not model.exists():
        workers.call("make_model", model=case.model, directory=str(model))
    with ThreadPoolExecutor(2) as pool:
        split = pool.submit(_split, workers, case, model, scratch)
        whole = pool.submit(_whole, workers, case, model, scratch)
        reports, insensitive = split.result()
        modular, modular_error, classic, modules = whole.result()
    return Outcome(
        split=np.load(scratch / "split.npy"),
        modular=modular,
        modular_error=modular_error,
        classic=classic,
        insensitive=insensitive,
        reports=reports,
        modules_in_reference=modules,
    )


def _given(request: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in request.items() if value is not None}


def _split(
    workers: Workers, case: Case, model: Path, scratch: Path
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    requests = {"base": _given(case.request)}
    requests |= {name: _given(case.request | change) for name, change in case.changes.items()}
    reports: dict[str, dict[str, Any]] = {}
    before: dict[str, str] = {}
    for stage in STAGES:
        if stage == "decoder":
            requests = {"base": requests["base"]}
            after = {"base": str(scratch / "split.npy")}
        else:
            after = {name: str(scratch / f"{stage}-{name}") for name in requests}
        reports[stage] = workers.call(
            "run_stage",
            directory=str(_part(model, stage, scratch)),
            stage=stage,
            requests=requests,
            inputs=before,
            outputs=after,
            output=case.output,
            output_type=case.output_type,
        )
        before = after
    base = (scratch / "dit-base").read_bytes()
    same = [name for name in case.changes if (scratch / f"dit-{name}").read_bytes() == base]
    return reports, same


def _part(model: Path, stage: str, scratch: Path) -> Path:
    """Return a directory that has only what a stage needs."""
    request = Request(stage=Stage(stage))
    return fetch(
        DirectorySource(model), scratch / f"cache-{stage}", request, Report(io.StringIO())
    ).path


def _whole(
    workers: Workers, case: Case, model: Path, scratch: Path
) -> tuple[np.ndarray | None, str, np.ndarray | None, list[str]]:
    modular, error, classic, modules = None, "", None, []
    try:
        modules = workers.call(
            "run_modular",
            directory=str(model),
            class_name=case.modular,
            request=_given(case.request),
            output=case.output,
            output_type=case.output_type,
            guider=case.guider,
            path=str(scratch / "modular.npy"),
        )
        modular = np.load(scratch / "modular.npy")
    except RuntimeError as failure:
        error = str(failure)
    if case.classic is not None:
        workers.call(
            "run_classic",
            directory=str(model),
            class_name=case.classic,
            request=_given(case.request | case.classic_request),
            output=case.output,
            path=str(scratch / "classic.npy"),
        )
        classic = np.load(scratch / "classic.npy")
    return modular, error, classic, modules


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Return the greatest difference; 0.0 only where the bytes are the same."""
    a, b = np.squeeze(a), np.squeeze(b)
    if a.shape != b.shape:
        return float("inf")
    if a.dtype == b.dtype and a.tobytes() == b.tobytes():
        return 0.0
    return max(float(np.abs(a.astype(np.float64) - b.astype(np.float64)).max()), 1e-30)
