import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from disagfusion.transport.api import RefusalReason, RefusedError
from disagfusion.transport.slots import GrantPool, NoFreeSlotError, SlotState


def refusal(pool: GrantPool, *args: object) -> RefusalReason:
    with pytest.raises(RefusedError) as caught:
        pool.admit(*args)  # type: ignore[arg-type]
    return caught.value.reason


def test_message_before_assignment_and_after() -> None:
    pool = GrantPool(2)
    pool.issue("a")
    pool.issue("b")
    pool.admit("a", "job", 1)
    pool.assign("a", "job", 1)
    pool.filled("a")
    pool.assign("b", "other", 1)
    pool.admit("b", "other", 1)
    pool.filled("b")
    assert pool.counts == {"free": 0, "issued": 0, "filling": 0, "filled": 2}
    pool.release("a")
    assert pool.free == 1
    assert pool.state("a") is SlotState.FREE


def test_a_grant_fills_one_slot_once() -> None:
    pool = GrantPool(2)
    pool.issue("a")
    pool.admit("a", "job", 1)
    assert refusal(pool, "a", "job", 1) is RefusalReason.UNKNOWN_GRANT
    pool.filled("a")
    assert refusal(pool, "a", "job", 1) is RefusalReason.UNKNOWN_GRANT
    pool.release("a")
    assert refusal(pool, "a", "job", 1) is RefusalReason.UNKNOWN_GRANT
    assert refusal(pool, "never", "job", 1) is RefusalReason.UNKNOWN_GRANT
    with pytest.raises(ValueError, match="used once"):
        pool.issue("a")


def test_a_bound_grant_refuses_other_attempts() -> None:
    pool = GrantPool(1)
    pool.issue("a")
    pool.assign("a", "job", 2)
    pool.assign("a", "job", 2)
    assert refusal(pool, "a", "job", 1) is RefusalReason.STALE
    assert refusal(pool, "a", "another", 2) is RefusalReason.STALE
    with pytest.raises(RefusedError):
        pool.assign("a", "job", 3)
    pool.admit("a", "job", 2)


def test_a_dropped_message_can_be_sent_again() -> None:
    pool = GrantPool(1)
    pool.issue("a")
    pool.admit("a", "job", 1)
    pool.dropped("a")
    assert pool.offered == ("a",)
    pool.admit("a", "other", 1)
    pool.assign("a", "other", 1)
    pool.dropped("a")
    assert pool.offered == ()
    assert refusal(pool, "a", "job", 1) is RefusalReason.STALE
    pool.admit("a", "other", 1)


def test_revoke_until_taken() -> None:
    pool = GrantPool(3)
    for name in "abc":
        pool.issue(name)
    pool.assign("a", "job", 1)
    pool.admit("b", "job2", 1)
    assert [pool.revoke(name) for name in "abcd"] == [False, False, True, False]
    assert pool.free == 1
    assert refusal(pool, "c", "job3", 1) is RefusalReason.UNKNOWN_GRANT


def test_misuse() -> None:
    pool = GrantPool(1)
    pool.issue("a")
    with pytest.raises(NoFreeSlotError):
        pool.issue("b")
    with pytest.raises(ValueError, match="not filling"):
        pool.filled("a")
    pool.admit("a", "job", 1)
    with pytest.raises(ValueError, match="being filled"):
        pool.release("a")
    with pytest.raises(ValueError, match="unknown"):
        pool.release("b")
    with pytest.raises(ValueError, match="0 slots"):
        GrantPool(0)


class SlotsMachine(RuleBasedStateMachine):
    """Never more fills than slots, never two fills of one grant."""

    SLOTS = 3

    def __init__(self) -> None:
        super().__init__()
        self.pool = GrantPool(self.SLOTS)
        self.issued = 0
        self.fills: dict[str, int] = {}

    @precondition(lambda self: self.pool.free)
    @rule()
    def issue(self) -> None:
        self.issued += 1
        self.pool.issue(f"g{self.issued}")

    @rule(
        number=st.integers(1, 8),
        call=st.sampled_from(["assign", "admit", "filled", "dropped", "revoke", "release"]),
        job=st.sampled_from(["x", "y"]),
    )
    def call(self, number: int, call: str, job: str) -> None:
        # The most recent grants, so that most of them are alive.
        name = f"g{max(1, self.issued - number + 1)}"
        before = self.pool.state(name)
        arguments = (name, job, 1) if call in {"assign", "admit"} else (name,)
        try:
            getattr(self.pool, call)(*arguments)
        except (RefusedError, ValueError):
            assert self.pool.state(name) is before
            return
        if call == "filled":
            self.fills[name] = self.fills.get(name, 0) + 1

    @invariant()
    def bounded(self) -> None:
        assert sum(self.pool.counts.values()) == self.SLOTS
        assert min(self.pool.counts.values()) >= 0
        assert all(count == 1 for count in self.fills.values())


TestSlotsMachine = SlotsMachine.TestCase
