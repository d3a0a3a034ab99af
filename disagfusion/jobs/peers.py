"""The port through which gateways that share a job store share its jobs.

Every unfinished job belongs to one gateway, its owner, and a gateway that shares a store has a row
in it for as long as it lives. Each transaction of a gateway that changes anything begins with a
look at its own row, which keeps others from removing it until the transaction has ended. So once a
row is gone, nothing that its gateway began can follow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from disagfusion.errors import UnavailableError
from disagfusion.jobs.model import Job, JobEvent


class LeaseLostError(UnavailableError):
    """Other gateways took this one for dead: its jobs are theirs, and it must end."""

    default_reason = "LEASE_LOST"


@dataclass(frozen=True, slots=True)
class Adopted:
    """Jobs that have a new owner.

    Attributes:
        jobs: As they are in the store, in the order of submission.
        owners: Gateways that are no more, and have no other successor.
    """

    jobs: tuple[Job, ...] = ()
    owners: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class News:
    """What other gateways have done.

    Attributes:
        cancelled: Own unfinished jobs that somebody wants to end.
        events: The last event of each job that was asked about.
    """

    cancelled: tuple[str, ...] = ()
    events: tuple[JobEvent, ...] = ()


class Peers(ABC):
    """What a gateway does in view of the others; its changes fail with `LeaseLostError`."""

    @abstractmethod
    async def now(self) -> float:
        """Return Unix seconds by the one clock that all gateways can read."""

    @abstractmethod
    async def beat(self) -> Mapping[str, int]:
        """Say that this gateway lives; return how often each gateway has, the eldest first."""

    @abstractmethod
    async def adopt(self, dead: Mapping[str, int]) -> Adopted:
        """Take over what belongs to nobody.

        Args:
            dead: Gateways to be removed before, with the number of beats of each; one that has
                beaten since is left alone.
        """

    @abstractmethod
    async def owned(self) -> frozenset[str]:
        """Return the ids of the unfinished jobs of this gateway."""

    @abstractmethod
    async def news(self, watched: Collection[str]) -> News:
        """Return what has happened elsewhere.

        Args:
            watched: Ids of jobs of other gateways.
        """

    @abstractmethod
    async def cancel(self, job_id: str) -> None:
        """Have the owner of a job end it; nothing happens where it has ended."""

    @abstractmethod
    async def count_elsewhere(self) -> Mapping[str, int]:
        """Return how many unfinished jobs each tenant has at other gateways."""

    @abstractmethod
    async def resign(self) -> None:
        """Give all jobs up, for others to adopt at once; nothing can be changed afterwards."""
