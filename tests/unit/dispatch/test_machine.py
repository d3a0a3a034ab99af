"""The dispatcher against workers that die, disconnect, answer late, twice, out of order, or lie."""

from random import Random

import pytest
from dispatchkit.world import FAILURES, NAMES, Nothing, World
from hypothesis import HealthCheck, settings

from disagfusion.dispatch import events as ev
from disagfusion.jobs.model import Stage

World.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestWorld = World.TestCase

TROUBLE = [
    lambda world, r: world.kill(r.choice(NAMES)),
    lambda world, r: world.disconnect(r.choice(NAMES)),
    lambda world, r: world.give_up(r.choice(NAMES)),
    lambda world, r: world.lose_held(r.choice(NAMES)),
    lambda world, r: world.restart_gateway(),
    lambda world, r: world.cancel(r.randrange(1000)),
    lambda world, r: world.stage_fails(r.randrange(1000), r.choice(FAILURES), r.randrange(20)),
    lambda world, r: world.lie(
        r.randrange(10_000), r.choice(NAMES), r.randrange(4), r.choice([*Stage])
    ),
    lambda world, r: world.results_arrive(r.choice([None, *ev.ResultFailure])),
    lambda world, r: world.wait(r.choice([0.01, 0.3, 3.0, 40.0])),
]
PROGRESS = [
    lambda world, r: world.submit(r.randrange(-1, 2), r.choice([None] * 8 + [5.0, 1000.0])),
    lambda world, r: world.deliver_down(r.randrange(1000), r.randrange(1, 7)),
    lambda world, r: world.deliver_up(
        r.randrange(1000), r.randrange(1, 7), r.random() < 0.2, r.random() < 0.2
    ),
    lambda world, r: world.progress(r.randrange(1000), r.randrange(1, 9)),
    lambda world, r: world.results_arrive(None),
    lambda world, r: world.becomes_durable(r.randrange(1, 40)),
    lambda world, r: world.flow(1),
    lambda world, r: world.reconnect(r.choice(NAMES)),
    lambda world, r: world.reconnect(r.choice(NAMES)),
]


@pytest.mark.parametrize("seed", range(30))
def test_long_runs(seed: int) -> None:
    """Many jobs and much that goes wrong at once, which short examples do not come to."""
    random = Random(seed)
    world = World()
    world.begin()
    trouble = random.choice([0.05, 0.15, 0.3])
    for _ in range(400):
        steps = TROUBLE if random.random() < trouble else PROGRESS
        try:
            random.choice(steps)(world, random)
        except Nothing:
            continue
    world.teardown()


@pytest.mark.parametrize("rounds", range(1, 10))
def test_a_restart_leaves_no_result_of_a_job_that_is_cancelled_after_it(rounds: int) -> None:
    world = World()
    world.begin()
    for _ in range(2):
        world.submit(priority=0, timeout=None)
    world.flow(rounds=1)
    world.flow_on(rounds=rounds)
    world.restart_gateway()
    world.cancel(pick=0)
    world.teardown()
