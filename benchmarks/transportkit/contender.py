"""What is compared, and two processes to measure it in."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Protocol

MEBIBYTE = 1 << 20


class Contender(Protocol):
    """Something that moves bytes from one process to another."""

    @property
    def name(self) -> str:
        """For tables."""

    @property
    def over(self) -> str:
        """What it goes over, "shm" or "tcp"."""

    def measure(self, sizes: Sequence[int], seconds: float) -> Mapping[int, float]:
        """Return bytes per second by size of message, each measured for about so long."""


@dataclass(frozen=True)
class TwoProcesses:
    """A contender written here: a receiver and a sender, each a process of its own.

    Attributes:
        name: For tables.
        over: "shm" or "tcp".
        receive: Says through the pipe where it listens, then receives until it is ended.
        send: Returns what `Contender.measure` returns, given the place, sizes and seconds.
    """

    name: str
    over: str
    receive: Callable[[Connection, int], None]
    send: Callable[[Any, Sequence[int], float], Mapping[int, float]]

    def measure(self, sizes: Sequence[int], seconds: float) -> Mapping[int, float]:
        """See `Contender`."""
        with started(self.receive, max(sizes)) as (pipe, _):
            place = pipe.recv()
            with started(_send, self.send, place, sizes, seconds) as (answer, _):
                rates: Mapping[int, float] = answer.recv()
                return rates


@contextmanager
def started(
    target: Callable[..., None], *arguments: Any
) -> Iterator[tuple[Connection, multiprocessing.process.BaseProcess]]:
    """Run a function in a process that imports everything itself, with a pipe to it."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours, process
    finally:
        process.kill()
        process.join()


def touched(nbytes: int) -> bytearray:
    """Return memory that is really there, with bytes that do not compress."""
    return bytearray(os.urandom(MEBIBYTE) * -(-nbytes // MEBIBYTE))[:nbytes]


def _send(
    pipe: Connection,
    send: Callable[[Any, Sequence[int], float], Mapping[int, float]],
    place: Any,
    sizes: Sequence[int],
    seconds: float,
) -> None:
    pipe.send(send(place, sizes, seconds))
    pipe.recv()
