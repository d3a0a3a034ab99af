"""Hand-overs between processes: this transport beside UCX's own benchmark and what one would write.

    python benchmarks/transport.py [--rounds 3] [--seconds 1] [--output benchmarks/results]

Everything is measured in one run, in rounds that take turns; the medians count. It takes a
quarter of an hour. `ucx_perftest` sends one buffer over and over, announces nothing and verifies
nothing; a hand-over has a header, is admitted to a slot, verified on both sides and acknowledged.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.reporting import environment, two_plots
from benchmarks.transportkit import ours, perftest, rivals
from benchmarks.transportkit.contender import Contender

KIBIBYTE, MEBIBYTE = 1 << 10, 1 << 20
SIZES = {
    "64 KiB": 64 * KIBIBYTE,
    "1 MiB": MEBIBYTE,
    "4 MiB": 4 * MEBIBYTE,
    "16 MiB": 16 * MEBIBYTE,
    "64 MiB": 64 * MEBIBYTE,
    "256 MiB": 256 * MEBIBYTE,
}
SMALL = 16 * KIBIBYTE
BASELINE = "ucx_perftest -e"
OURS = "DisagFusion"
UNVERIFIED = "DisagFusion, no checksum"

CONTENDERS: tuple[Contender, ...] = (
    ours.contender(OURS, "shm", ours.Way("ucx")),
    ours.contender(UNVERIFIED, "shm", ours.Way("ucx", checksum=False)),
    ours.contender(OURS, "tcp", ours.Way("ucx", network=True)),
    ours.contender(UNVERIFIED, "tcp", ours.Way("ucx", network=True, checksum=False)),
    ours.contender("DisagFusion, TCP backend", "tcp", ours.Way("tcp")),
    *perftest.contenders(),
    *rivals.contenders(),
)


@dataclass(frozen=True)
class Report:
    """What is written as JSON.

    Attributes:
        environment: Where it was measured.
        gigabytes_per_second: Medians by transport, contender and size.
        rounds: The same of every round.
        small: Hand-overs of 16 KiB by transport.
        mesh: Four producers to four consumers, by transport.
        ratios: What is claimed: ours against others, at each size.
        cuda: Why there are no figures for memory of a GPU.
    """

    environment: Mapping[str, Any]
    gigabytes_per_second: Mapping[str, Mapping[str, Mapping[str, float]]]
    rounds: Mapping[str, Mapping[str, list[Mapping[str, float]]]]
    small: Mapping[str, Any]
    mesh: Mapping[str, Any]
    ratios: Mapping[str, Mapping[str, float]]
    cuda: str


def measure(rounds: int, seconds: float) -> Report:
    """Run everything."""
    where = environment()
    taken: dict[str, dict[str, list[Mapping[str, float]]]] = {"shm": {}, "tcp": {}}
    for number in range(rounds):
        # Whoever comes first finds another machine than whoever comes last.
        order = CONTENDERS[number % len(CONTENDERS) :] + CONTENDERS[: number % len(CONTENDERS)]
        for contender in order:
            rates = contender.measure(list(SIZES.values()), seconds)
            named = {name: rates[size] / 1e9 for name, size in SIZES.items()}
            taken[contender.over].setdefault(contender.name, []).append(named)
            shown = ", ".join(f"{name} {rate:.2f}" for name, rate in named.items())
            print(f"{contender.over} {contender.name}: {shown} GB/s", file=sys.stderr)
    medians = {
        over: {
            name: {size: statistics.median(each[size] for each in runs) for size in SIZES}
            for name, runs in by_name.items()
        }
        for over, by_name in taken.items()
    }
    ways = {"shm": ours.Way("ucx"), "tcp": ours.Way("ucx", network=True)}
    return Report(
        environment=where,
        gigabytes_per_second=medians,
        rounds=taken,
        small={over: ours.measure_small(way, SMALL, 2 * seconds) for over, way in ways.items()},
        mesh={
            over: ours.measure_mesh(way, 4, 4 * MEBIBYTE, 3 * seconds) for over, way in ways.items()
        },
        ratios=_ratios(medians),
        cuda="not measured: slots are host memory",
    )


def _ratios(
    medians: Mapping[str, Mapping[str, Mapping[str, float]]],
) -> dict[str, dict[str, float]]:
    pairs = [
        (over, who, over, against)
        for over in ("shm", "tcp")
        for who in (UNVERIFIED, OURS)
        for against in (BASELINE, "ucx_perftest")
    ]
    pairs += [
        (over, OURS, "tcp", against)
        for over in ("shm", "tcp")
        for against in ("gRPC stream", "asyncio streams")
    ]
    return {
        f"{who} over {over} / {against} over {other}": {
            size: medians[over][who][size] / medians[other][against][size] for size in SIZES
        }
        for over, who, other, against in pairs
    }


def show(report: Report, console: Console) -> None:
    """Print the tables."""
    for over, by_name in report.gigabytes_per_second.items():
        table = Table(*("GB/s", *SIZES), title=f"one to one over {over}")
        for name, rates in by_name.items():
            table.add_row(name, *(f"{rates[size]:.2f}" for size in SIZES))
        console.print(table)
    table = Table(*("ratio", *SIZES), title="ours against others")
    for claim, values in report.ratios.items():
        table.add_row(claim, *(f"{value:.0%}" for value in values.values()))
    console.print(table)
    for over in report.small:
        small, mesh = report.small[over], report.mesh[over]
        rate = ", ".join(f"{r:.0f} with {n}" for n, r in small["hand_overs_per_second"].items())
        console.print(
            f"{small['transport']}: hand-overs of 16 KiB: median {small['median_ms']:.2f} ms,"
            f" P99 {small['p99_ms']:.2f} ms, the first {small['first_ms']:.1f} ms;"
            f" a second: {rate} under way; idle receiver {small['idle_core_share']:.2%} of a core"
        )
        console.print(
            f"{small['transport']}: 4 producers to 4 consumers, 4 MiB:"
            f" {mesh['bytes_per_second'] / 1e9:.2f} GB/s in all,"
            f" Jain's index of the 16 pairs {mesh['jain_index']:.3f}"
        )


def plot(report: Report, path: Path) -> None:
    """Draw throughput over size."""
    with two_plots(path) as axes:
        for axis, (over, by_name) in zip(axes, report.gigabytes_per_second.items(), strict=True):
            for name, rates in by_name.items():
                mine = name.startswith(OURS)
                axis.plot(
                    list(SIZES),
                    [rates[size] for size in SIZES],
                    marker="o" if mine else "s",
                    linestyle="-" if mine else "--",
                    label=name,
                )
            axis.set_title(f"one to one over {over}")
            axis.set_xlabel("payload of a hand-over")
        axes[0].set_ylabel("GB/s")
        axes[0].set_ylim(bottom=0)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=1.0, help="for each size")
    parser.add_argument("--output", type=Path, help="a directory for transport.{json,txt,svg}")
    arguments = parser.parse_args()
    report = measure(arguments.rounds, arguments.seconds)
    show(report, Console())
    if arguments.output:
        arguments.output.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(report), indent=2) + "\n"
        (arguments.output / "transport.json").write_text(text)
        with (arguments.output / "transport.txt").open("w") as file:
            show(report, Console(file=file, width=150))
        plot(report, arguments.output / "transport.svg")


if __name__ == "__main__":
    main()
