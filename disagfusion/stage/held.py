"""Finished outputs, kept until the next stage's output is safe. Pure bookkeeping."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from disagfusion.stage.actions import OutputKey, Product
from disagfusion.transport.arena import Arena, ArenaFullError
from disagfusion.v1 import generation_pb2, stage_pb2


@dataclass(slots=True, eq=False)
class HeldOutput:
    """A finished output.

    Attributes:
        key: Its name.
        block: Where its memory begins, within the arena.
        product: What it is.
        record: How it was made.
        touched: When it was last of use.
        pins: Who reads its memory now: transfers and fetches under way.
        acknowledged: The next stage has it.
        released: Nobody wants it any more; its memory is freed with the last pin.
        owner: Name of the gateway whose job it is.
    """

    key: OutputKey
    block: int
    product: Product
    record: generation_pb2.StageRecord
    touched: float
    owner: str
    pins: int = 0
    acknowledged: bool = False
    released: bool = False

    def done(self) -> stage_pb2.StageDone:
        """Return what a gateway is told about it."""
        return stage_pb2.StageDone(
            output=self.key.to_message(),
            size_bytes=self.product.nbytes,
            media=self.product.media,
            record=self.record,
        )


class HeldStore:
    """Held outputs in an arena.

    Args:
        capacity: Bytes.
        seconds: After which an output that nobody touched, and that is not kept, is forgotten.
        kept: Whether an output stays until it is released, however long that takes.
    """

    def __init__(
        self, capacity: int, seconds: float, kept: Callable[[HeldOutput], bool] = lambda _: False
    ) -> None:
        self._arena = Arena(capacity)
        self._seconds = seconds
        self._kept = kept
        self._outputs: dict[OutputKey, HeldOutput] = {}
        self._released: dict[int, HeldOutput] = {}

    def __iter__(self) -> Iterator[HeldOutput]:
        return iter(self._outputs.values())

    def __len__(self) -> int:
        return len(self._outputs)

    @property
    def used(self) -> int:
        """Bytes handed out, space that an engine still fills included."""
        return self._arena.stats.used

    @property
    def capacity(self) -> int:
        """Bytes in all."""
        return self._arena.stats.capacity

    @property
    def busy(self) -> bool:
        """Whether anything is held, or read although it was released."""
        return bool(self._outputs or self._released)

    def allocate(self, nbytes: int) -> int | None:
        """Return the place of so many bytes, or None while there is no room."""
        try:
            return self._arena.allocate(nbytes)
        except ArenaFullError:
            return None

    def free(self, block: int) -> None:
        """Take back a place that was not made an output."""
        self._arena.free(block)

    def add(self, output: HeldOutput) -> None:
        """Hold an output; one of the same name is released."""
        self.release(output.key)
        self._outputs[output.key] = output

    def get(self, key: OutputKey) -> HeldOutput | None:
        """Return an output that has not been released."""
        return self._outputs.get(key)

    def release(self, key: OutputKey) -> bool:
        """Let an output go; its memory is free now or with the end of the last use."""
        output = self._outputs.pop(key, None)
        if output is None:
            return False
        output.released = True
        if output.pins:
            self._released[output.block] = output
        else:
            self._arena.free(output.block)
        return True

    def unpin(self, output: HeldOutput) -> bool:
        """Note the end of a use; tell whether memory became free."""
        output.pins -= 1
        if output.pins or not output.released:
            return False
        del self._released[output.block]
        self._arena.free(output.block)
        return True

    def expire(self, now: float) -> list[HeldOutput]:
        """Release what nobody touched for too long; return it."""
        late = [
            held
            for held in self._outputs.values()
            if now - held.touched >= self._seconds and self._may_expire(held)
        ]
        for output in late:
            self.release(output.key)
        return late

    def next_expiry(self) -> float | None:
        """When `expire` has something to do next."""
        times = [h.touched + self._seconds for h in self._outputs.values() if self._may_expire(h)]
        return min(times, default=None)

    def _may_expire(self, held: HeldOutput) -> bool:
        return not held.pins and not self._kept(held)
