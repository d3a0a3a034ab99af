"""The bytes that emulated stages hand over: cheap to make, and known to whoever receives them.

Blocks of 64 KiB, each with its place and then what a hash makes of job and stage. So bytes of
another job, another stage or another place within the output are found.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from disagfusion.errors import DataLossError, InternalError
from disagfusion.pipeline.stages import Stage
from disagfusion.transport.api import TensorInfo

_BLOCK = 1 << 16
_PLACE = 8
_NAMES = {Stage.ENCODER: "prompt_embeds", Stage.DIT: "latents"}


class WrongBytesError(InternalError):
    """An emulated stage received other bytes than were meant for it."""

    default_reason = "WRONG_BYTES"


@dataclass(frozen=True, slots=True)
class Content:
    """An emulated output, as one tensor of bytes.

    Attributes:
        job_id: Whose it is.
        stage: Which stage made it.
        nbytes: How large it is.
        facts: What is said about it beside its bytes.
    """

    job_id: str
    stage: Stage
    nbytes: int
    facts: Mapping[str, Any]

    @property
    def tensors(self) -> tuple[TensorInfo, ...]:
        """Its place and form."""
        name = _NAMES[self.stage]
        return (TensorInfo(name, "uint8", (self.nbytes,), (0,), 0, self.nbytes),)

    @property
    def structure(self) -> bytes:
        """The facts as JSON."""
        return json.dumps({"emulated": dict(self.facts)}, separators=(",", ":")).encode()

    def write(self, memory: memoryview) -> None:
        """Write the bytes."""
        for begin, block in self._blocks():
            memory[begin : begin + block.nbytes] = block

    def verify(self, received: memoryview) -> None:
        """Compare what was received.

        Raises:
            WrongBytesError: It is something else; the message says where it begins to be.
        """
        if received.nbytes != self.nbytes:
            raise self._wrong(f"{received.nbytes} bytes came instead of {self.nbytes}")
        for begin, block in self._blocks():
            # Views compare item by item, bytes at once.
            there, wanted = bytes(received[begin : begin + block.nbytes]), bytes(block)
            if there != wanted:
                first = next(
                    i for i, (a, b) in enumerate(zip(there, wanted, strict=True)) if a != b
                )
                raise self._wrong(f"byte {begin + first} of {self.nbytes} differs")

    def _wrong(self, how: str) -> WrongBytesError:
        return WrongBytesError(
            f"this is not what the emulated {self.stage} made for job {self.job_id}: {how}"
        )

    def _blocks(self) -> Iterator[tuple[int, memoryview]]:
        key = f"{self.stage}/{self.job_id}".encode()
        block = bytearray(_PLACE) + hashlib.shake_128(key).digest(_BLOCK - _PLACE)
        view = memoryview(block)
        for begin in range(0, self.nbytes, _BLOCK):
            block[:_PLACE] = begin.to_bytes(_PLACE, "big")
            yield begin, view[: min(_BLOCK, self.nbytes - begin)]


def facts_of(structure: bytes) -> dict[str, Any]:
    """Return what is said about an emulated output beside its bytes.

    Raises:
        DataLossError: It is no emulated output.
    """
    try:
        facts = json.loads(bytes(structure))["emulated"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataLossError("no emulated stage made this", reason="DAMAGED_VALUES") from error
    if not isinstance(facts, dict):
        raise DataLossError("no emulated stage made this", reason="DAMAGED_VALUES")
    return facts
