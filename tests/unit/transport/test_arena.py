import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from disagfusion.transport.arena import Arena, ArenaFullError


def test_best_fit_takes_the_smallest_hole() -> None:
    arena = Arena(1024)
    blocks = [arena.allocate(n) for n in (128, 64, 64, 64, 704)]
    arena.free(blocks[0])
    arena.free(blocks[2])
    assert arena.allocate(10) == blocks[2]
    assert arena.allocate(10) == blocks[0]


def test_neighbours_coalesce_in_any_order() -> None:
    for order in ((0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)):
        arena = Arena(3 * 64)
        blocks = [arena.allocate(64) for _ in range(3)]
        for index in order:
            arena.free(blocks[index])
        assert arena.allocate(3 * 64) == 0


def test_full_changes_nothing_and_says_what_could_be_had() -> None:
    arena = Arena(256)
    arena.allocate(100)
    before = arena.stats
    with pytest.raises(ArenaFullError) as caught:
        arena.allocate(129)
    assert (caught.value.wanted, caught.value.largest) == (129, 128)
    assert arena.stats == before
    assert arena.fits(128)
    assert not arena.fits(129)


def test_misuse() -> None:
    arena = Arena(256)
    offset = arena.allocate(0)
    assert arena.size_of(offset) == 64
    arena.free(offset)
    with pytest.raises(ValueError, match="no block"):
        arena.free(offset)
    with pytest.raises(ValueError, match="no block"):
        arena.size_of(offset)
    with pytest.raises(ValueError, match="-1 bytes"):
        arena.allocate(-1)
    with pytest.raises(ValueError, match="power of two"):
        Arena(256, alignment=48)
    with pytest.raises(ValueError, match="cannot hold"):
        Arena(63)


@given(st.lists(st.integers(0, 5000), max_size=50))
def test_everything_freed_is_one_block_again(sizes: list[int]) -> None:
    arena = Arena(1 << 20)
    offsets = [arena.allocate(size) for size in sizes]
    assert arena.stats.peak == arena.stats.used
    for offset in offsets[::2] + offsets[1::2]:
        arena.free(offset)
    assert arena.stats.used == arena.stats.blocks == 0
    assert arena.stats.largest == arena.stats.capacity


class ArenaMachine(RuleBasedStateMachine):
    """Against a model that marks every byte unit."""

    offsets = Bundle("offsets")
    UNITS = 40

    def __init__(self) -> None:
        super().__init__()
        self.arena = Arena(self.UNITS * 64)
        self.owner: list[int | None] = [None] * self.UNITS

    @rule(target=offsets, nbytes=st.integers(0, 12 * 64))
    def allocate(self, nbytes: int) -> int:
        units = max(1, -(-nbytes // 64))
        holes = self.holes()
        try:
            offset = self.arena.allocate(nbytes)
        except ArenaFullError:
            assert all(length < units for length in holes)
            return -1
        first, rest = divmod(offset, 64)
        assert not rest
        assert all(self.owner[u] is None for u in range(first, first + units))
        self.owner[first : first + units] = [offset] * units
        return offset

    @rule(offset=consumes(offsets))
    def free(self, offset: int) -> None:
        if offset < 0:
            with pytest.raises(ValueError, match="no block"):
                self.arena.free(offset)
            return
        self.arena.free(offset)
        self.owner = [None if owner == offset else owner for owner in self.owner]

    def holes(self) -> list[int]:
        lengths, run = [], 0
        for owner in [*self.owner, -1]:
            if owner is None:
                run += 1
            elif run:
                lengths.append(run)
                run = 0
        return lengths

    @invariant()
    def agrees(self) -> None:
        stats = self.arena.stats
        assert stats.used == 64 * sum(owner is not None for owner in self.owner)
        assert stats.largest == 64 * max(self.holes(), default=0)
        assert stats.blocks == len({owner for owner in self.owner if owner is not None})


TestArenaMachine = ArenaMachine.TestCase
