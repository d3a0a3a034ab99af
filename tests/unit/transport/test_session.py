from __future__ import annotations

from dataclasses import replace

import pytest

from disagfusion.transport.api import RefusalReason, RefusedError
from disagfusion.transport.frame import Hello
from disagfusion.transport.session import Ledger, Liveness, check_hello

HELLO = Hello("them", "us", b"secret", "tcp")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"token": b"Secret"}, RefusalReason.UNKNOWN_GRANT),
        ({"token": b""}, RefusalReason.UNKNOWN_GRANT),
        ({"expected": "the ones before us"}, RefusalReason.STALE),
        ({"backend": "ucx"}, RefusalReason.MALFORMED),
    ],
)
def test_who_may_not_come_in(changes: dict[str, object], reason: RefusalReason) -> None:
    with pytest.raises(RefusedError) as caught:
        check_hello(replace(HELLO, **changes), incarnation="us", token=b"secret", backend="tcp")
    assert caught.value.reason is reason


def test_who_may() -> None:
    check_hello(HELLO, incarnation="us", token=b"secret", backend="tcp")


def test_silence_counts_from_the_last_byte_and_from_the_beginning() -> None:
    liveness = Liveness(interval=1.0, limit=5.0)
    liveness.begin(100.0)
    assert not liveness.lost(heard=10.0, now=104.9)
    assert liveness.lost(heard=10.0, now=105.0)
    assert not liveness.lost(heard=101.0, now=105.9)
    assert liveness.lost(heard=101.0, now=106.0)


def test_a_ledger_knows_what_it_has_seen() -> None:
    ledger = Ledger(limit=2)
    ledger.enter("a", "1")
    ledger.enter("b", "1")
    with pytest.raises(RefusedError) as caught:
        ledger.enter("a", "1")
    assert caught.value.reason is RefusalReason.STALE
    ledger.forget("a", "1")
    ledger.forget("a", "1")
    ledger.enter("a", "1")
    ledger.enter("c", "1")
    # The oldest was forgotten.
    ledger.enter("b", "1")
