"""Nothing about single families outside the one table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from disagfusion.pipeline.families import CLASS_TO_FAMILY

ROOT = Path(__file__).parents[3]
TABLE = ROOT / "disagfusion" / "pipeline" / "families.py"


def class_names() -> set[str]:
    """All class names that diffusers' packages of pipelines and models export."""
    import diffusers

    structure = diffusers._import_structure
    names = {name for exported in structure.values() for name in exported}
    general = {
        "AutoModel",
        "BaseGuidance",
        "DiffusionPipeline",
        "ModelMixin",
        "ModularPipeline",
        "ModularPipelineBlocks",
        "PipelineQuantizationConfig",
        "PipelineState",
        "SequentialPipelineBlocks",
        "LoopSequentialPipelineBlocks",
        "AutoPipelineBlocks",
        "ConditionalPipelineBlocks",
    }
    return {n for n in names if re.fullmatch(r"[A-Z]\w*[a-z]\w*", n)} - general


def test_no_class_name_of_a_family_outside_the_table() -> None:
    names = class_names()
    assert "FluxPipeline" in names
    assert "AutoencoderKL" in names
    found = []
    for folder in ("disagfusion", "services"):
        for path in (ROOT / folder).rglob("*.py"):
            if path == TABLE or "v1" in path.parts:
                continue
            words = set(re.findall(r"\b[A-Z]\w+\b", path.read_text(encoding="utf-8")))
            found += [f"{path.relative_to(ROOT)}: {name}" for name in sorted(words & names)]
    assert found == []


def test_the_table_has_class_names() -> None:
    assert set(re.findall(r"\b[A-Z]\w+\b", TABLE.read_text())) & class_names()


# Kolors' module is deprecated code by itself, and asking imports every pipeline.
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_the_table_contradicts_diffusers_nowhere() -> None:
    from diffusers.pipelines.auto_pipeline import _get_model

    known = {name: _get_model(name) for name in CLASS_TO_FAMILY}
    assert known["FluxPipeline"] == "flux"
    assert all(family in (None, CLASS_TO_FAMILY[name]) for name, family in known.items())
