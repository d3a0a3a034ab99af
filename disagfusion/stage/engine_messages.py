"""The machine's values to and from the messages of front and engine. Pure."""

from __future__ import annotations

from disagfusion.pipeline.spec import PipelineSpec
from disagfusion.stage.actions import EngineInfo, Product, RunOnEngine
from disagfusion.stage.layouts import from_layouts, to_layouts
from disagfusion.v1 import engine_pb2, generation_pb2
from disagfusion.version import __version__

_CACHE_RESULTS = {
    engine_pb2.PROMPT_CACHE_RESULT_HIT: "hit",
    engine_pb2.PROMPT_CACHE_RESULT_MISS: "miss",
}


def engine_info_of(loaded: engine_pb2.EngineLoaded) -> EngineInfo:
    """Return what a loaded engine says of itself."""
    spec = PipelineSpec.from_json(loaded.spec_json)
    return EngineInfo(
        spec_json=loaded.spec_json,
        version=f"{spec.version}-{__version__}",
        device=loaded.device,
        accelerators=loaded.accelerators,
        threads=loaded.threads,
        load_seconds=loaded.load_seconds,
    )


def product_of(finished: engine_pb2.RunFinished) -> Product:
    """Return what an engine made of a run."""
    return Product(
        nbytes=finished.size_bytes,
        tensors=from_layouts(finished.tensors),
        structure=finished.structure,
        media=tuple(_copy(output) for output in finished.media),
        compute_seconds=finished.compute_seconds,
        steps=finished.steps,
        prompt_cache=_CACHE_RESULTS.get(finished.prompt_cache, ""),
    )


def _copy(output: generation_pb2.Output) -> generation_pb2.Output:
    copy = generation_pb2.Output()
    copy.CopyFrom(output)
    return copy


def run_message(action: RunOnEngine) -> engine_pb2.RunStage:
    """Return what has an engine compute."""
    assignment, header = action.assignment, action.header
    run = engine_pb2.RunStage(
        run_id=action.run_id,
        job_id=assignment.job_id,
        attempt=assignment.attempt,
        generation=assignment.generation,
        tenant=assignment.tenant,
    )
    if header is not None:
        run.input.offset = action.offset
        run.input.size_bytes = header.nbytes
        run.input.tensors.extend(to_layouts(header.tensors))
        run.input.structure = header.structure
    return run
