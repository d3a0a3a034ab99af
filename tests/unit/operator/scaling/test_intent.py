from __future__ import annotations

import pytest
from disagfusion_operator.scaling.intent import Intent, read_intent
from hypothesis import given
from hypothesis import strategies as st

from disagfusion.scheduling.decision import Place

places = st.builds(Place, st.sampled_from(["encoder", "dit", "decoder"]), st.sampled_from("ab"))


counts = st.dictionaries(places, st.integers(0, 9))


@given(counts, counts, st.none() | st.text(min_size=1), st.booleans())
def test_what_is_written_is_read(
    desired: dict[Place, int], asleep: dict[Place, int], begun: str | None, planned: bool
) -> None:
    intent = Intent(desired, asleep, begun, planned)
    assert read_intent(intent.text()) == intent


@pytest.mark.parametrize(
    "text",
    [
        *(None, "", "{}", "[]", "5", "{", '{"desired": 5}', '{"desired": {"dit": 5}}'),
        *('{"desired": {"dit": {"a": -1}}}', '{"desired": {"dit": {"a": true}}}'),
        '{"desired": {"dit": {"a": "1"}}}',
    ],
)
def test_what_cannot_be_read_is_nothing(text: str | None) -> None:
    assert read_intent(text) is None
