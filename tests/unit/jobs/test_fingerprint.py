import pytest
from hypothesis import given
from hypothesis import strategies as st

from disagfusion.jobs.fingerprint import fingerprint

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
    | st.binary(max_size=5)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner),
    max_leaves=8,
)
contents = st.dictionaries(st.text("abc", max_size=2), values, max_size=4)


def exact(value: object) -> object:
    """Make Python's == as strict as the fingerprint: 1, 1.0 and True differ, as do 0.0 and -0.0."""
    if isinstance(value, dict):
        return {key: exact(item) for key, item in value.items()}
    if isinstance(value, list):
        return [exact(item) for item in value]
    return (type(value).__name__, value.hex() if isinstance(value, float) else value)


@given(contents, contents)
def test_equal_exactly_when_the_contents_are(a: dict, b: dict) -> None:  # type: ignore[type-arg]
    assert (fingerprint(a) == fingerprint(b)) == (exact(a) == exact(b))


@given(contents)
def test_the_order_of_keys_does_not_matter(content: dict) -> None:  # type: ignore[type-arg]
    assert fingerprint(dict(reversed(content.items()))) == fingerprint(content)


def test_neighbours_do_not_run_together() -> None:
    seen = [
        {"a": "bc"},
        {"ab": "c"},
        {"a": b"bc"},
        {"a": ["b", "c"]},
        {"a": ["bc"]},
        {"a": [["b"], "c"]},
        {"a": "b", "c": ""},
        {"a": 1},
        {"a": 1.0},
        {"a": True},
        {"a": None},
        {},
    ]
    assert len({fingerprint(content) for content in seen}) == len(seen)


def test_it_stays_the_same_from_version_to_version() -> None:
    content = {"tenant": "anna", "prompt": "a seven", "steps": 4, "images": [b"\x00"], "scale": 2.5}
    assert fingerprint(content) == (
        "f81686796f8430bf45498a3ea97526ed6cbbcbba66d326f5bd9a0318cdef3d06"
    )


def test_other_types_are_refused() -> None:
    with pytest.raises(TypeError, match="set"):
        fingerprint({"a": {1}})  # type: ignore[dict-item]
