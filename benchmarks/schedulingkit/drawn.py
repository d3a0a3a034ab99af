"""Workloads and profiles drawn by a seed, so that no policy was tuned on them."""

from __future__ import annotations

import random
from typing import Any

from disagfusion.scheduling.profile import Pool, Profile, StagePool, StageProfile
from disagfusion.scheduling.shapes import CostModel, Shape
from disagfusion.simulation.workload import Failure, Noise, Stream, Workload

KINDS = ("steps", "sizes", "burst", "diurnal", "ramp", "flash-crowd", "pool-failing")
POOL = "gpu"
_SHAPES = {
    "short": Shape(height=480, width=832, num_frames=33, num_inference_steps=4),
    "long": Shape(height=480, width=832, num_frames=33, num_inference_steps=16),
    "large": Shape(height=720, width=1280, num_frames=49, num_inference_steps=4),
}
_REBIND_SECONDS = (10.0, 60.0)


def draw(seed: str, kind: str) -> tuple[Profile, Workload]:
    """Return a profile and a workload of a kind.

    The offered load is around what the fleet can do with the best ratio, now below and now above,
    and which ratio that is changes with the mix.
    """
    rng = random.Random(f"{seed}/{kind}")
    budget = rng.randint(6, 12)
    profile = _profile(rng, budget)
    mixes = [_mix(rng, kind) for _ in range(rng.randint(2, 4))]
    length = rng.uniform(400, 900)
    streams: list[Stream] = []
    failures: tuple[Failure, ...] = ()
    for index, mix in enumerate(mixes):
        start, end = index * length, (index + 1) * length
        rate = rng.uniform(0.6, 1.15) * budget / _work(profile, mix)
        process = rng.choice(("regular", "poisson"))
        common: dict[str, Any] = {
            "shapes": mix, "start": start, "end": end, "rate": rate, "process": process
        }  # fmt: skip
        if kind == "diurnal":
            common |= {"amplitude": rng.uniform(0.4, 0.8), "period": length, "process": "poisson"}
        if kind == "ramp":
            common |= {"final_rate": rate * rng.uniform(0.2, 2.0), "process": "poisson"}
        streams.append(Stream(**common))
        if kind in ("burst", "flash-crowd") and index:
            # Seconds of arrivals at many times what the fleet can do.
            span = 20.0 if kind == "burst" else 90.0
            at = start + rng.uniform(0.1, 0.6) * length
            burst = _mix(rng, "steps")
            more = rng.uniform(4, 8) * budget / _work(profile, burst)
            streams.append(Stream(shapes=burst, start=at, end=at + span, rate=more))
    if kind == "pool-failing":
        at = rng.uniform(0.3, 0.6) * length * len(mixes)
        failures = (
            Failure(
                at=at, pool=POOL, stage="dit", replicas=max(1, budget // 4),
                repair_seconds=rng.uniform(200, 600),
            ),
        )  # fmt: skip
    return profile, Workload(
        name=f"{kind}, seed {seed}",
        shapes=_SHAPES,
        arrivals=tuple(streams),
        budget=budget,
        rebind_seconds=round(rng.uniform(*_REBIND_SECONDS)),
        noise=Noise(arrival_seconds=2.0, service_ratio=0.05),
        failures=failures,
    )


def _profile(rng: random.Random, budget: int) -> Profile:
    encoder = rng.uniform(1, 8)
    step, decoder = rng.uniform(2, 8), rng.uniform(3, 15)
    # Quadratic in the pixels for the DiT, linear for the decoder, as attention and convolutions.
    pixels = _SHAPES["short"].megapixels
    return Profile(
        name="drawn",
        pools={POOL: Pool(accelerators=budget)},
        stages={
            "encoder": StageProfile(pools={POOL: StagePool(seconds=round(encoder, 2))}),
            "dit": StageProfile(
                pools={
                    POOL: StagePool(
                        model=CostModel(
                            per_step_megapixel=0.5 * step / pixels,
                            per_step_megapixel_squared=0.5 * step / pixels**2,
                        )
                    )
                }
            ),
            "decoder": StageProfile(
                pools={POOL: StagePool(model=CostModel(per_megapixel=decoder / pixels))}
            ),
        },
    )


def _mix(rng: random.Random, kind: str) -> dict[str, float]:
    names = ["short", "large"] if kind == "sizes" else ["short", "long"]
    if kind in ("diurnal", "pool-failing"):
        names = list(_SHAPES)
    weights = {name: rng.random() ** 2 for name in names}
    return {name: round(weight + 0.02, 3) for name, weight in weights.items()}


def _work(profile: Profile, mix: dict[str, float]) -> float:
    """Return the accelerator-seconds of a mean job."""
    total = sum(mix.values())
    return sum(
        weight / total * stage.pools[POOL].seconds_of(_SHAPES[name])
        for name, weight in mix.items()
        for stage in profile.stages.values()
    )
