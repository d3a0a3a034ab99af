"""Draw handwritten digits through three processes and check what came out.

    python examples/demo/demo.py --output out/demo

Writes the pictures and a contact sheet, and prints what each stage did. Exits with 1 unless

- the three stages ran in three processes, none of them this one, and tensors went over UCX;
- every picture is bit-identical to the unsplit diffusers pipelines, which run in a process that
  imports nothing of DisagFusion (reference.py);
- no tensor crossed gRPC: of two jobs that differ only in the length of the conditioning, the longer
  moves more bytes over UCX, by exactly the difference of the tensors, and as many over gRPC.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measures import GrpcAccount, grpc_account
from PIL import Image, ImageChops
from rich.console import Console
from rich.table import Table

from disagfusion.client import Client, GenerationResult, StageRecord
from disagfusion.errors import DisagfusionError
from disagfusion.local import LocalRuntime
from disagfusion.local.deployment import DIGITS

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "digits"))
from contact_sheet import contact_sheet  # noqa: E402  (a sibling example, no package)

PROMPTS = [
    "a handwritten zero in red",
    "a handwritten one in blue",
    "a handwritten two in green",
    "a handwritten three in orange",
    "a handwritten four in purple",
    "a handwritten five in red",
    "a handwritten six in blue",
    "a handwritten seven in green",
    "a handwritten eight in orange",
    "a handwritten nine in purple",
]
OPTIONS: dict[str, Any] = {"num_inference_steps": 8, "height": 64, "width": 64}
SHORT, LONG = 32, 512
THREADS = 1
"""Of each engine and of the reference: another number may change the last bits."""

# Wide enough for the table where the output is a file.
console = Console(width=None if sys.stdout.isatty() else 120)


@dataclass
class Check:
    """One thing that must hold, and what was seen."""

    holds: bool
    text: str


def draw(client: Client) -> list[GenerationResult]:
    """Submit all prompts at once, so that the stages overlap, and wait for the pictures."""
    handles = [
        client.submit(prompt, seed=seed, parameters={"max_sequence_length": SHORT}, **OPTIONS)
        for seed, prompt in enumerate(PROMPTS)
    ]
    return [handle.result() for handle in handles]


def stage_table(records: tuple[StageRecord, ...]) -> Table:
    table = Table(title="stages of the last picture", title_justify="left")
    for name in ("stage", "pid", "device", "queue", "compute", "receive", "send", "bytes", "over"):
        table.add_column(name, justify="left" if name in ("stage", "device", "over") else "right")
    for record in records:
        seconds = (
            record.queue_seconds,
            record.compute_seconds,
            record.receive_seconds,
            record.send_seconds,
        )
        table.add_row(
            record.stage.name.lower(),
            str(record.pid),
            record.device,
            *(f"{1e3 * value:.1f} ms" for value in seconds),
            f"{record.bytes_out:,}",
            record.transport or "–",
        )
    return table


def check_processes(results: list[GenerationResult]) -> Check:
    pids = {r.stage.name.lower(): r.pid for result in results for r in result.stages}
    alive = all(Path(f"/proc/{pid}").exists() for pid in pids.values())
    distinct = len(pids) == 3 and len({*pids.values(), os.getpid()}) == 4
    listed = ", ".join(f"{stage} {pid}" for stage, pid in pids.items())
    return Check(distinct and alive, f"three engine processes: {listed}")


def check_transport(results: list[GenerationResult]) -> Check:
    used = {r.transport for result in results for r in result.stages if r.transport}
    sends = sum(bool(r.transport) for result in results for r in result.stages)
    right = sends == 2 * len(results) and all(name.startswith("ucx/") for name in used)
    return Check(right, f"{sends} hand-overs for {len(results)} pictures over {', '.join(used)}")


def check_grpc(client: Client, runtime: LocalRuntime) -> Check:
    """Compare two jobs that differ in the number of text tokens and nothing else."""
    accounts: list[GrpcAccount] = []
    tensors: list[int] = []
    for length in (SHORT, LONG):
        before = grpc_account(runtime)
        result = client.generate(
            PROMPTS[0], seed=0, parameters={"max_sequence_length": length}, **OPTIONS
        )
        accounts.append(grpc_account(runtime) - before)
        tensors.append(tensor_bytes(result))
    more_tensors = tensors[1] - tensors[0]
    more_data = accounts[1].data_plane - accounts[0].data_plane
    more_control = accounts[1].control - accounts[0].control
    return Check(
        # Steps, pings and digits of durations make a few bytes more or less.
        more_tensors == more_data > 0 and abs(more_control) < more_tensors / 50,
        f"no tensor over gRPC: {LONG} instead of {SHORT} text tokens are {more_tensors:,} bytes "
        f"more of tensors, {more_data:,} more over UCX, {more_control:+,} over gRPC",
    )


def tensor_bytes(result: GenerationResult) -> int:
    """Return the bytes of the tensors that left the encoder and the DiT."""
    return sum(record.bytes_out for record in result.stages if record.transport)


def check_reference(pictures: list[Image.Image], output: Path) -> Check:
    directory = output / "reference"
    directory.mkdir(exist_ok=True)
    jobs = [
        {"prompt": prompt, "seed": seed, "max_sequence_length": SHORT, **OPTIONS}
        for seed, prompt in enumerate(PROMPTS)
    ]
    request = directory / "request.json"
    request.write_text(json.dumps({"model": str(DIGITS), "threads": THREADS, "jobs": jobs}))
    done = subprocess.run(
        [sys.executable, "-P", HERE / "reference.py", request, directory],
        env={**os.environ, "OMP_NUM_THREADS": str(THREADS)},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode != 0:
        return Check(False, f"the reference failed: {done.stderr[-2000:]}")
    said = json.loads(done.stdout.splitlines()[-1])
    equal = 0
    for index, picture in enumerate(pictures):
        for name in ("modular", "classic"):
            with Image.open(directory / f"{name}-{index}.png") as reference:
                equal += same_pixels(picture, reference)
    return Check(
        equal == 2 * len(pictures) and not said["ours"],
        f"{equal} of {2 * len(pictures)} comparisons with unsplit diffusers (modular and classic) "
        f"are bit-identical; torch {said['torch']}",
    )


def same_pixels(one: Image.Image, other: Image.Image) -> bool:
    """Return whether two pictures are equal in mode, size and every pixel."""
    if (one.mode, one.size) != (other.mode, other.size):
        return False
    return ImageChops.difference(one, other).getbbox(alpha_only=False) is None


def run(output: Path) -> bool:
    output.mkdir(parents=True, exist_ok=True)
    console.print("starting gateway, encoder, DiT and decoder …")
    with LocalRuntime(threads=THREADS) as runtime, Client(runtime.address) as client:
        results = draw(client)
        checks = [check_processes(results), check_transport(results), check_grpc(client, runtime)]
    pictures = [result.images[0] for result in results]
    for digit, picture in enumerate(pictures):
        picture.save(output / f"digit-{digit}.png")
    captions = [prompt.removeprefix("a handwritten ") for prompt in PROMPTS]
    contact_sheet(pictures, captions, columns=5).save(output / "contact-sheet.png", optimize=True)
    console.print(stage_table(results[-1].stages))
    console.print("drawing the same pictures with unsplit diffusers …")
    checks.append(check_reference(pictures, output))
    for check in checks:
        console.print(
            f"[{'green]yes' if check.holds else 'red]NO '}[/]  {check.text}", highlight=False
        )
    console.print(f"pictures: {output}/digit-*.png, all on one: {output}/contact-sheet.png")
    return all(check.holds for check in checks)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("out/demo"))
    try:
        good = run(parser.parse_args().output)
    except DisagfusionError as error:
        raise SystemExit(f"the demo failed: {error}") from error
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
