"""One message through a UCX worker: its segments and their checksums, a step at a time.

Stepped by the thread that drives UCX. A checksum is computed where the segment is still in the
processor's cache: before UCX reads it again, or after UCX has written it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from disagfusion.transport.digest import Digest

# Segments given to UCX at the same time by a sender.
_WINDOW = 4

# Gives UCX a segment by its number; returns UCX's request.
Submit = Callable[[memoryview, int], Any]


class Transfer(ABC):
    """Segments on their way.

    Args:
        segments: Their memory; one at least.
        digest: Computes checksums.
        digested: Called with all checksums once they are known.
        done: Called with them when UCX touches the memory no more.
    """

    def __init__(
        self,
        segments: Sequence[memoryview],
        digest: Digest,
        digested: Callable[[tuple[int, ...]], None],
        done: Callable[[tuple[int, ...]], None],
    ) -> None:
        self._segments = segments
        self._digest = digest
        self._digested = digested
        self._done = done
        self._digests: list[int] = []
        self._submitted = 0
        self.pending: deque[Any] = deque()

    @property
    def finished(self) -> bool:
        """Whether all has been done."""
        return len(self._digests) == len(self._segments) and not self.pending

    def finish(self) -> None:
        """Let go of the memory, and say that all has been done."""
        self._segments = ()
        self._done(tuple(self._digests))

    @abstractmethod
    def step(self, submit: Submit) -> bool:
        """Do the next thing that can be done; return whether there was one.

        Raises:
            OSError, ucxx.UCXError: UCX failed.
        """

    def _submit(self, submit: Submit) -> None:
        self.pending.append(submit(self._segments[self._submitted], self._submitted))
        self._submitted += 1

    def _take(self) -> bool:
        # UCX completes them in their order, but for those that it had to hold back.
        if not self.pending or not self.pending[0].completed:
            return False
        self.pending.popleft().check_error()
        return True

    def _digest_next(self) -> None:
        self._digests.append(self._digest(self._segments[len(self._digests)]))
        if len(self._digests) == len(self._segments):
            self._digested(tuple(self._digests))


class Sending(Transfer):
    """Segments of a sender."""

    def step(self, submit: Submit) -> bool:
        """Give UCX the next segment and compute its checksum, or take one that is through."""
        if self._submitted < len(self._segments) and len(self.pending) < _WINDOW:
            self._submit(submit)
            self._digest_next()
        elif not self._take():
            return False
        return True


class Receiving(Transfer):
    """Segments of a receiver; UCX has all of their memory from the beginning."""

    def step(self, submit: Submit) -> bool:
        """Give UCX the memory, or take a segment that is there and compute its checksum."""
        if not self._submitted:
            for _ in self._segments:
                self._submit(submit)
        elif not self._take():
            return False
        else:
            self._digest_next()
        return True
