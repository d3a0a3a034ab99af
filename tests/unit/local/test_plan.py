from hypothesis import given
from hypothesis import strategies as st

from disagfusion.local.plan import Plan, ProcessSpec, RestartPolicy, RoleSpec

texts = st.text(max_size=20)
specs = st.builds(
    ProcessSpec,
    name=texts,
    role=texts,
    argv=st.lists(texts, max_size=4).map(tuple),
    environment=st.dictionaries(texts, texts, max_size=3),
    ready_file=texts,
    pin_address=texts,
    outlives=st.booleans(),
    roles=st.dictionaries(
        texts, st.builds(RoleSpec, argv=st.lists(texts, max_size=2).map(tuple)), max_size=2
    ),
    autostart=st.booleans(),
    heartbeat=st.booleans(),
)
plans = st.builds(
    Plan,
    parent=st.integers(1, 2**31),
    processes=st.lists(specs, max_size=3).map(tuple),
    log_directory=texts,
    stop_grace=st.floats(0, 100),
    remove=st.lists(texts, max_size=2).map(tuple),
    echo=st.booleans(),
    control=texts,
)


@given(plans)
def test_a_plan_survives_its_json(plan: Plan) -> None:
    text = plan.to_json()
    assert "\n" not in text
    assert Plan.from_json(text) == plan


def test_restarts_back_off_up_to_a_bound_and_then_end() -> None:
    policy = RestartPolicy(initial=0.1, maximum=1.0, limit=6)
    delays = [policy.delay(failures) for failures in range(1, 8)]
    assert delays == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0, None]
    assert policy.delay(10_000, proven=True) == 1.0
