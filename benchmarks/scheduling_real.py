"""Does the balancer do to real processes what it does to simulated ones?

    python benchmarks/scheduling_real.py [--time-scale 0.1] [--policy hybrid] [--policy static]

Runs a workload (W2 where nothing else is said) on emulated accelerators: gateway, fronts, engines,
gRPC, tensors and the balancer are the real processes, the seconds are the profile's, scaled. Jobs
are submitted at their scaled times. Beside the last finish and the latencies stands what
`disagfusion simulate` says of the same workload, profile and rule. A run at the scale 1/10 takes
about three minutes for each policy.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from disagfusion.client import Client, JobHandle
from disagfusion.errors import InvalidArgumentError
from disagfusion.local import Balance, LocalRuntime
from disagfusion.scheduling.document import parse
from disagfusion.scheduling.profile import Profile
from disagfusion.simulation.arrivals import Arrival, draw_arrivals
from disagfusion.simulation.policies.named import set_up
from disagfusion.simulation.run import Simulation
from disagfusion.simulation.workload import Workload

EXAMPLES = Path(__file__).parents[1] / "examples"
POLICIES = ("hybrid", "static")


@dataclass(frozen=True)
class Outcome:
    """What became of a workload, in seconds of the profile.

    Attributes:
        policy: The rule.
        completed: Jobs that succeeded.
        last: When the last one ended.
        p50: Median latency.
        p95: 95th percentile of it.
        moves: Replicas that changed their stage.
        late: The most that a submission came after its time; 0 where time is simulated.
    """

    policy: str
    completed: int
    last: float
    p50: float
    p95: float
    moves: int
    late: float = 0.0


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that at least this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def simulate(policy: str, workload: Workload, profile: Profile) -> Outcome:
    """Run the workload in simulated time."""

    def plan() -> dict[str, dict[str, int]]:
        raise InvalidArgumentError("initial", "missing in the workload", expected="replicas")

    setup = set_up(policy, profile, workload, plan)
    result = Simulation(
        workload,
        setup.profile,
        setup.balancer,
        initial=setup.initial,
        learn=setup.learn,
        generator=generator,
    ).run()
    latency = result.latency_seconds
    return Outcome(
        policy,
        result.completed,
        result.last_finish_seconds,
        latency["p50"],
        latency["p95"],
        result.moves,
    )


def generator(stream: int) -> random.Random:
    """Return the random numbers of a stream of jobs, as `disagfusion simulate` draws them."""
    return random.Random(f"0/{stream}")


def run(policy: str, workload: Workload, profile: Profile, scale: float, data: Path) -> Outcome:
    """Run the workload in real processes."""
    if workload.initial is None:
        raise InvalidArgumentError("initial", "missing in the workload", expected="replicas")
    (pool,) = profile.pools
    replicas = {stage: pools[pool] for stage, pools in workload.initial.items()}
    balance = Balance(budget=workload.budget) if policy == "hybrid" else False
    with (
        LocalRuntime(
            profile=rebinding(profile, workload),
            device=f"emulated:{pool}",
            encoders=replicas["encoder"],
            dits=replicas["dit"],
            decoders=replicas["decoder"],
            time_scale=scale,
            transport="tcp",
            balance=balance,
            data_dir=data,
            settings={"waiting_per_slot": str(workload.waiting_per_slot), "arena_bytes": "4194304"},
        ) as runtime,
        Client(runtime.address, timeout=600.0) as client,
    ):
        arrivals = list(draw_arrivals(workload, len(profile.stages), generator))
        begin = time.time()
        handles, late = submit(client, arrivals, workload, begin, scale)
        jobs = [handle.result().job for handle in handles]
    spans = [(j.submitted_at, j.ended_at) for j in jobs if j.submitted_at and j.ended_at]
    ends = [end.timestamp() for _, end in spans]
    latencies = [(end - start).total_seconds() / scale for start, end in spans]
    return Outcome(
        policy,
        len(ends),
        (max(ends) - begin) / scale,
        percentile(latencies, 0.5),
        percentile(latencies, 0.95),
        moves_of(data),
        late / scale,
    )


def submit(
    client: Client, arrivals: Sequence[Arrival], workload: Workload, begin: float, scale: float
) -> tuple[list[JobHandle], float]:
    """Submit every job at its time; return them, and by how much the latest came too late."""
    handles, late = [], 0.0
    for number, arrival in enumerate(arrivals):
        at = begin + arrival.at * scale
        time.sleep(max(0.0, at - time.time()))
        late = max(late, time.time() - at)
        shape = workload.shapes[arrival.shape]
        handles.append(
            client.submit(
                "a lighthouse",
                seed=number,
                height=shape.height,
                width=shape.width,
                num_frames=shape.num_frames,
                num_inference_steps=shape.num_inference_steps,
            )
        )
    return handles, late


def rebinding(profile: Profile, workload: Workload) -> Profile:
    """Return the profile with the seconds that a change of stage takes in the workload."""
    seconds = workload.rebind_seconds
    if seconds is None:
        return profile
    if isinstance(seconds, dict):
        raise InvalidArgumentError(
            "rebind_seconds", "is given by stage", expected="one number for all"
        )
    pools = {
        name: pool.model_copy(update={"start_seconds": seconds, "load_gib_per_second": None})
        for name, pool in profile.pools.items()
    }
    return profile.model_copy(update={"pools": pools})


def moves_of(data: Path) -> int:
    """Return how many replicas the decision log says were moved."""
    log = data / "decisions.jsonl"
    if not log.exists():
        return 0
    decisions = [json.loads(line) for line in log.read_text().splitlines()]
    return sum(move["count"] for decision in decisions for move in decision["moves"])


def show(pairs: Sequence[tuple[Outcome, Outcome]], console: Console) -> None:
    """Print what was found."""
    table = Table(box=None, pad_edge=False)
    for column in ("policy", "", "jobs", "last s", "P50 s", "P95 s", "moves", "late s"):
        table.add_column(column, justify="left" if column in ("policy", "") else "right")
    for real, simulated in pairs:
        for kind, one in (("processes", real), ("simulated", simulated)):
            table.add_row(
                *(one.policy if kind == "processes" else "", kind, f"{one.completed}"),
                *(f"{one.last:.0f}", f"{one.p50:.0f}", f"{one.p95:.0f}", f"{one.moves}"),
                f"{one.late:.2f}" if kind == "processes" else "",
            )
        table.add_row(
            "", "difference", "",
            *(f"{100 * (getattr(real, name) / getattr(simulated, name) - 1):+.1f} %"
              for name in ("last", "p50", "p95")),
        )  # fmt: skip
    console.print(table)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workload", type=Path, default=EXAMPLES / "workloads/w2.yaml")
    parser.add_argument("--profile", type=Path, default=EXAMPLES / "profiles/wan2.2-i2v-480p.yaml")
    parser.add_argument("--policy", action="append", choices=POLICIES)
    parser.add_argument("--time-scale", type=float, default=0.1)
    parser.add_argument("--output", type=Path, help="write the outcomes here as JSON")
    parser.add_argument("--data", type=Path, help="keep logs and decisions in this directory")
    arguments = parser.parse_args()
    workload = parse(Workload, arguments.workload.read_text(), name=arguments.workload.name)
    profile = parse(Profile, arguments.profile.read_text(), name=arguments.profile.name)
    pairs = []
    for policy in arguments.policy or POLICIES:
        with tempfile.TemporaryDirectory() as temporary:
            data = (arguments.data or Path(temporary)) / policy
            real = run(policy, workload, profile, arguments.time_scale, data)
        pairs.append((real, simulate(policy, workload, profile)))
        show(pairs[-1:], Console())
    if arguments.output is not None:
        found = [{"processes": asdict(real), "simulated": asdict(sim)} for real, sim in pairs]
        arguments.output.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
