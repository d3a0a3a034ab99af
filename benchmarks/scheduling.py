"""Compare the balancer with other rules, in simulated time.

Parts, each a table:
    w2          The three-phase workload under every fixed ratio, every rule, and unsplit processes.
    seeds       The same over twenty seeds with arrivals ± 5 s and times ± 5 %, paired.
    rebind      The same with other costs of changing a replica's stage.
    drawn       Workloads drawn by a seed, against the best fixed ratio chosen with hindsight.
    wrong       Wrong profiles, a throttled pool, a shape that the profile says nothing of.
    constant    Six hours of constant load: when anything changes.
    calibration Self-calibration on against off, on the drawn workloads.
    pools       Three pools of different speed, memory and price: cost for a rate of jobs.
    unequal     A mix that shifts on such pools, also with failures and a slow pool.
    scale       A million jobs on ten thousand accelerators.

Usage: python benchmarks/scheduling.py [--parts w2,seeds,...] [--seed TEXT] [--output DIR]

`--seed` draws the workloads of `drawn` and `calibration`; by default the commit's hash, so that
nothing was tuned on them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.reporting import environment
from benchmarks.schedulingkit.drawn import KINDS, draw
from benchmarks.schedulingkit.pools import cases, contenders, only, price, price_if_alike
from benchmarks.schedulingkit.runs import (
    HEAD,
    Figures,
    first_plan,
    load,
    paired,
    row,
    run,
    static_ratios,
)
from disagfusion.scheduling.demand import Demand
from disagfusion.scheduling.profile import Pool, Profile
from disagfusion.simulation.workload import Noise, Stream, Throttle, Workload

RULES = ("hybrid", "predict", "feedback", "reference", "hpa", "plain")
SEEDS = 20
_MILLION = 1_000_000


def part_w2(_: str) -> dict[str, Any]:
    """One run of each."""
    workload, profile = load("w2", "wan2.2-i2v-480p")
    names = [*static_ratios(3, 8), *RULES, "monolith:resident", "monolith:offloading"]
    print(HEAD)
    found = {}
    for name in names:
        figures = Figures.of(run(name, workload, profile))
        found[name] = asdict(figures)
        print(row(name, figures), flush=True)
    return found


def part_seeds(_: str) -> dict[str, Any]:
    """Twenty seeds, paired."""
    workload, profile = load("w2", "wan2.2-i2v-480p")
    return _over_seeds(workload, profile, RULES)


def part_rebind(_: str) -> dict[str, Any]:
    """Rebind seconds from nothing to five minutes, and a workload that shifts often."""
    workload, profile = load("w2", "wan2.2-i2v-480p")
    often = workload.model_copy(update={"name": "mix shifts every 200 s", "arrivals": _often()})
    found = {}
    for what in (workload, often):
        for seconds in (0, 30, 60, 120, 300):
            print(f"{what.name}, a change costs {seconds} s")
            one = what.model_copy(update={"rebind_seconds": float(seconds)})
            found[f"{what.name}/{seconds}"] = _once(one, profile, ("hybrid", "plain", "reference"))
    return found


def part_drawn(seed: str) -> dict[str, Any]:
    """Ten workloads that nobody has seen."""
    found: dict[str, Any] = {}
    shares: dict[str, list[Figures]] = {}
    best_of: list[Figures] = []
    for index in range(10):
        kind = KINDS[index % len(KINDS)]
        profile, workload = draw(f"{seed}/{index}", kind)
        workload = workload.model_copy(update={"initial": first_plan(workload, profile)})
        assert workload.budget is not None
        statics = {
            name: Figures.of(run(name, workload, profile, seed))
            for name in static_ratios(3, workload.budget)
        }
        best = _best(list(statics.values()))
        best_of.append(best)
        print(f"{workload.name}, {workload.budget} accelerators")
        print(HEAD)
        print(row("best fixed ratios", best))
        entry: dict[str, Any] = {"best": asdict(best)}
        for name in RULES:
            figures = Figures.of(run(name, workload, profile, seed))
            shares.setdefault(name, []).append(figures)
            entry[name] = asdict(figures)
            share = f"{figures.last / best.last:5.2f} {figures.p95 / best.p95:5.2f}"
            print(row(name, figures), share, flush=True)
        found[workload.name] = entry
    for name, figures_of in shares.items():
        ratios = paired(figures_of, best_of)
        worst = max(f.p95 / b.p95 for f, b in zip(figures_of, best_of, strict=True))
        worst_last = max(f.last / b.last for f, b in zip(figures_of, best_of, strict=True))
        print(
            f"{name:22} over the best fixed ratio, median: last {ratios['last']:.3f}"
            f" P95 {ratios['p95']:.3f}; worst: last {worst_last:.3f} P95 {worst:.3f}"
        )
        found[f"median of {name}"] = ratios | {"worst_p95": worst, "worst_last": worst_last}
    return found | _against(RULES, shares)


def part_wrong(_: str) -> dict[str, Any]:
    """What the profile says is not what happens."""
    workload, profile = load("w2", "wan2.2-i2v-480p")
    cases: dict[str, tuple[Workload, Profile]] = {"as the profile says": (workload, profile)}
    for stage in profile.stages:
        for factor in (0.5, 2.0):
            throttle = Throttle(stage=stage, speed=1.0 / factor)
            cases[f"{stage} takes x {factor:g}"] = (
                workload.model_copy(update={"throttles": (throttle,)}), profile,
            )  # fmt: skip
    for stage in ("dit", "decoder"):
        throttle = Throttle(start=600, stage=stage, speed=0.6)
        name = f"{stage} at 60 % of its speed from 600 s on"
        cases[name] = workload.model_copy(update={"throttles": (throttle,)}), profile
    cases["one step was never profiled"] = workload, _flat(profile)
    found = {}
    for name, (what, believed) in cases.items():
        print(name)
        found[name] = _once(what, believed, ("hybrid", "predict", "feedback"), truth=profile)
    return found


def part_constant(_: str) -> dict[str, Any]:
    """Six hours."""
    workload, profile = load("w2", "wan2.2-i2v-480p")
    found = {}
    for shapes, rate in (
        ({"four-step": 1.0}, 0.06),
        ({"four-step": 1.0}, 0.078),
        ({"one-step": 1.0}, 0.18),
        ({"four-step": 1.0, "one-step": 1.0}, 0.1),
    ):
        stream = Stream(shapes=shapes, rate=rate, end=6 * 3600, turns=True)
        update = {"arrivals": (stream,), "noise": Noise(service_ratio=0.05)}
        result = run("hybrid", workload.model_copy(update=update), profile)
        changes = [(one.at, one.message) for one in result.decisions if one.moves]
        name = f"{rate:g} jobs/s of {' and '.join(shapes)}"
        found[name] = changes
        print(name, changes, flush=True)
    return found


def part_calibration(seed: str) -> dict[str, Any]:
    """On against off."""
    found: dict[str, Any] = {}
    on: list[Figures] = []
    off: list[Figures] = []
    for index, kind in enumerate(KINDS):
        profile, workload = draw(f"{seed}/{index}", kind)
        workload = workload.model_copy(update={"initial": first_plan(workload, profile)})
        off.append(Figures.of(run("hybrid", workload, profile, seed)))
        result = run("calibrating", workload, profile, seed)
        on.append(Figures.of(result))
        notes = [note for one in result.decisions for note in one.notes if " better" in note]
        print(workload.name, notes)
        print(row("off", off[-1]))
        print(row("on", on[-1]), flush=True)
        found[workload.name] = {"off": asdict(off[-1]), "on": asdict(on[-1]), "notes": notes}
    ratios = paired(on, off)
    print("on over off, median:", {name: round(value, 3) for name, value in ratios.items()})
    found["on over off, median"] = ratios
    return found


def part_pools(_: str) -> dict[str, Any]:
    """What a rate of jobs costs."""
    profile = load("w2", "three-pools")[1]
    found: dict[str, Any] = {}
    print(f"{'jobs/s':>7} {'exact plan':>12} {'one pool':>12} {'all pools alike':>18}  an hour")
    for rate in (0.05, 0.1, 0.2, 0.3, 0.4, 0.5):
        demand = Demand(rate=rate, headroom=0.0)
        best = price(profile, demand)
        single = [price(only(profile, pool), demand) for pool in profile.pools]
        homogeneous = min((one for one in single if one is not None), default=None)
        alike = price_if_alike(profile, demand)
        found[str(rate)] = {"exact": best, "one pool": homogeneous, "alike": alike}
        cells = [f"{one:12.2f}" if one is not None else f"{'-':>12}" for one in (best, homogeneous)]
        print(f"{rate:7.2f} {' '.join(cells)} {f'{alike:.2f}' if alike else '-':>18}")
    return found


def part_unequal(_: str) -> dict[str, Any]:
    """The balancer and what knows less, or more."""
    found: dict[str, Any] = {}
    for case in cases():
        print(f"{case.name}\n{HEAD}")
        found[case.name] = {}
        for name, figures in contenders(case):
            found[case.name][name] = asdict(figures)
            print(row(name, figures), flush=True)
    return found


def part_scale(_: str) -> dict[str, Any]:
    """A million jobs."""
    workload, profile = load("w2", "wan2.2-i2v-480p")
    big = profile.model_copy(update={"pools": {"a10": Pool(accelerators=10_000)}})
    stream = Stream(shapes={"four-step": 1, "one-step": 1}, rate=150.0, count=_MILLION)
    update = {"arrivals": (stream,), "budget": 10_000, "initial": None}
    what = workload.model_copy(update=update)
    started = time.perf_counter()
    result = run("static", what, big)
    seconds = time.perf_counter() - started
    print(f"{result.completed} jobs in {seconds:.0f} s; lost {result.lost}")
    return {"seconds": seconds, "completed": result.completed, "lost": result.lost}


def _over_seeds(workload: Workload, profile: Profile, names: tuple[str, ...]) -> dict[str, Any]:
    noisy = workload.model_copy(update={"noise": Noise(arrival_seconds=5.0, service_ratio=0.05)})
    figures = {
        name: [Figures.of(run(name, noisy, profile, seed)) for seed in range(SEEDS)]
        for name in names
    }
    found: dict[str, Any] = {}
    for name in names:
        last = sorted(one.last for one in figures[name])
        p95 = sorted(one.p95 for one in figures[name])
        middle = SEEDS // 2
        found[name] = {"last": last, "p95": p95}
        print(
            f"{name:12} last {last[0]:.0f} / {last[middle]:.0f} / {last[-1]:.0f}"
            f"   P95 {p95[0]:.0f} / {p95[middle]:.0f} / {p95[-1]:.0f}  (least, median, most)"
        )
    return found | _against(names, figures)


def _against(names: tuple[str, ...], figures: dict[str, list[Figures]]) -> dict[str, Any]:
    """Compare the first rule with each other one, run by run."""
    found: dict[str, Any] = {}
    for name in names[1:]:
        ratios = paired(figures[names[0]], figures[name])
        found[f"{names[0]} over {name}"] = ratios
        print(
            f"{names[0]} over {name:12} median of pairs: last {ratios['last']:.3f}"
            f"   P95 {ratios['p95']:.3f}   mean {ratios['mean']:.3f}"
        )
    return found


def _once(
    workload: Workload, profile: Profile, names: tuple[str, ...], truth: Profile | None = None
) -> dict[str, Any]:
    """Run each rule once; the profile is what they believe."""
    print(HEAD)
    found = {}
    for name in names:
        figures = Figures.of(run(name, workload, profile, truth=truth))
        found[name] = asdict(figures)
        print(row(name, figures), flush=True)
    return found


def _often() -> tuple[Stream, ...]:
    streams = []
    for index in range(8):
        start = 200.0 * index
        shape, every = ("four-step", 14.0) if index % 2 == 0 else ("one-step", 5.0)
        streams.append(Stream(shapes={shape: 1}, start=start, end=start + 200, every=every))
    return tuple(streams)


def _flat(profile: Profile) -> Profile:
    """Return the profile of somebody who has measured four steps only."""
    dit = profile.stages["dit"]
    pool = dit.pools["a10"].model_copy(update={"model": None, "seconds": 74.2})
    stages = {**profile.stages, "dit": dit.model_copy(update={"pools": {"a10": pool}})}
    return profile.model_copy(update={"stages": stages})


def _best(figures: list[Figures]) -> Figures:
    """Return the best of each figure, whichever ratio had it."""
    return Figures(
        last=min(one.last for one in figures),
        p50=min(one.p50 for one in figures),
        p95=min(one.p95 for one in figures),
        mean=min(one.mean for one in figures),
        moves=0,
        cost=min(one.cost for one in figures),
        lost=0,
        exceeded=0,
    )


PARTS: dict[str, Callable[[str], dict[str, Any]]] = {
    "w2": part_w2,
    "seeds": part_seeds,
    "rebind": part_rebind,
    "drawn": part_drawn,
    "wrong": part_wrong,
    "constant": part_constant,
    "calibration": part_calibration,
    "pools": part_pools,
    "unequal": part_unequal,
    "scale": part_scale,
}


def main() -> None:
    """Run the parts that were asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--seed", default="")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    wanted = options.parts.split(",")
    if unknown := set(wanted) - set(PARTS):
        parser.error(f"--parts: {', '.join(sorted(unknown))} (expected {', '.join(PARTS)})")
    seed = options.seed or _commit()
    results: dict[str, Any] = {"environment": environment(), "seed": seed}
    for name in wanted:
        print(f"\n== {name} (seed {seed})" if name in ("drawn", "calibration") else f"\n== {name}")
        started = time.perf_counter()
        results[name] = PARTS[name](seed)
        print(f"({time.perf_counter() - started:.0f} s)", flush=True)
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        path = options.output / "scheduling.json"
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


if __name__ == "__main__":
    main()
