"""Measure every family of diffusers' modular pipelines and write docs/families.md.

    python tools/families.py [CASE ...]

Runs the cases of tests/integration/families: tiny models with random weights, each stage in a
process of its own. With names of cases only these are run and printed, and nothing is written.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "integration" / "families"))

from familykit.cases import CASES, Case  # noqa: E402
from familykit.client import Workers  # noqa: E402
from familykit.run import Outcome, difference, run_case  # noqa: E402

TARGET = ROOT / "docs" / "families.md"

# Why there is no case for a class; every other class of the table has one.
REASONS = {
    "WanAnimate2ModularPipeline": "no tiny model yet; decodes with the VAE inside `denoise`, so "
    "the DiT loads the VAE",
    "WanAnimate2DistilledModularPipeline": "as Wan Animate 2",
    "Wan22VaceModularPipeline": "no tiny model yet",
    "Flux3ModularPipeline": "no tiny model yet; there is no classic pipeline to save one from",
    "Flux3DistilledModularPipeline": "as Flux 3",
    "Ideogram4ModularPipeline": "no tiny model yet",
    "Krea2TurboModularPipeline": "the same blocks as Krea 2 without a guider",
    "QwenImageEditPlusModularPipeline": "resizes pictures to a megapixel whatever one asks; as "
    "QwenImageEdit",
    "QwenImageLayeredModularPipeline": "no tiny model yet",
    "QwenImage21ModularPipeline": "no tiny model yet",
    "QwenImage21TurboModularPipeline": "no tiny model yet",
    "AnimaModularPipeline": "no tiny model yet; there is no classic pipeline to save one from",
    "HeliosPyramidModularPipeline": "no tiny model yet; progress is told per scheduler step",
    "HeliosPyramidDistilledModularPipeline": "as Helios Pyramid",
    "EchoModularPipeline": "no tiny model yet; there is no classic pipeline to save one from",
    "LTX2ModularPipeline": "no tiny model yet; declares a VAE inside `denoise`",
    "LTX25ModularPipeline": "as LTX 2",
    "MiniMaxH3ModularPipeline": "no tiny model yet; there is no classic pipeline to save one from",
    "MiniMaxMusic3ModularPipeline": "no tiny model yet; audio",
}

HEAD = """# Model families

Any family that diffusers describes as modular blocks is cut the same way: what comes before the
block `denoise` is the encoder, `denoise` is the DiT, what follows is the decoder. What crosses a
cut is found by liveness: values that a later block reads and an earlier one wrote.

This page is written by `tools/families.py` from what it measured, with diffusers {diffusers},
torch {torch} and transformers {transformers} on CPU in float32, one thread per process, tiny models
with random weights. The tests in `tests/integration/families` assert the same. Every stage ran in
an operating-system process of its own; between them went only bytes. "=" is bit for bit, a number
is the greatest difference of pixels in 0–1. Every case was shown to be sensitive to its prompt,
seed, guidance, negative prompt and pictures, where it has them. No real weights and no GPU were
used.

## Measured

Equal to the unsplit modular pipeline is what we promise. Where the classic pipeline differs, it is
because diffusers' own two implementations differ.

"""

NOTES = """
Notes:

- Stable Diffusion 3 and Qwen-Image are guided only where a request has a `negative_prompt`, even
  an empty one; so it is with the unsplit modular pipelines.
- Z-Image's guider is set up as the classic pipeline computes guidance; `guidance_scale` 0 turns it
  off. The reference here has the same guider.
- LTX without guidance fails in diffusers' modular pipeline, because the DiT asks for negative
  embeddings. Here the encoder always makes them, and the result equals the classic pipeline's.
- Weights keep `requires_grad`. Without it torch folds batched products differently, and a batch of
  two differs in the last bits.
- IP adapters of Stable Diffusion XL are not served: they change the weights of the denoiser.

"""


def main() -> None:
    """Run the cases, write the page."""
    chosen = {name: CASES[name] for name in sys.argv[1:]} or CASES
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        workers = Workers(directory)
        try:
            rows = [_measured(workers, case, directory) for case in chosen.values()]
            families = workers.call("cut_all")
        finally:
            workers.close()
    if len(chosen) == len(CASES):
        TARGET.write_text(_page(rows, families), encoding="utf-8")
    else:
        sys.stdout.write("".join(rows))


def _measured(workers: Workers, case: Case, directory: Path) -> str:
    scratch = directory / f"case-{case.name}"
    scratch.mkdir()
    start = time.perf_counter()
    outcome = run_case(workers, case, directory / "models", scratch)
    sys.stderr.write(f"{case.name}: {time.perf_counter() - start:.1f} s\n")
    if outcome.insensitive:
        raise SystemExit(f"{case.name} does not see {', '.join(outcome.insensitive)}")
    cells = (
        case.name,
        case.modular.removesuffix("ModularPipeline"),
        case.workflow,
        "fails there" if outcome.modular is None else _equal(outcome, outcome.modular),
        "–" if outcome.classic is None else _equal(outcome, outcome.classic),
        ", ".join(f"`{name}`" for name in outcome.reports["encoder"]["names"]["base"]),
        ", ".join(f"`{name}`" for name in outcome.reports["dit"]["names"]["base"]),
        case.note,
    )
    return f"| {' | '.join(cells)} |\n"


def _equal(outcome: Outcome, other: Any) -> str:
    found = difference(outcome.split, other)
    return "=" if found == 0.0 else f"{found:.1g}"


def _page(rows: list[str], families: list[dict[str, Any]]) -> str:
    from importlib.metadata import version

    page = HEAD.format(**{n: version(n) for n in ("diffusers", "torch", "transformers")})
    page += (
        "| case | family | workflow | modular | classic | encoder → DiT | DiT → decoder | why |\n"
    )
    page += "|---|---|---|---|---|---|---|---|\n" + "".join(rows) + NOTES
    page += "## All families of diffusers' table\n\n"
    page += "| family | class | cut | measured | components of the DiT |\n|---|---|---|---|---|\n"
    for row in families:
        cut = f"no: {row['error']}" if "error" in row else f"yes, {row['workflows']} workflow(s)"
        measured = "yes" if row["covered"] else f"no: {REASONS[row['class']]}"
        parts = ", ".join(row.get("components", {}).get("dit", ()))
        page += f"| {row['family']} | {row['class']} | {cut} | {measured} | {parts} |\n"
    return page


if __name__ == "__main__":
    main()
