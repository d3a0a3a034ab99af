"""Which queues have to be looked at: now, at some time, or once there is room behind them."""

from __future__ import annotations

from disagfusion.dispatch.flow import Lane, Queue
from disagfusion.dispatch.heap import RemovableHeap


class Agenda:
    """What a decision has left for later ones.

    A queue is looked at when something has changed that may let one of its jobs be assigned: a
    job has joined it, a worker of its stage has changed, or time has come.

    Attributes:
        marked: Queues to be looked at now.
        looks: Queues to be looked at a horizon before some time.
        blocked: Lanes that may not take jobs as long as so many are ahead of them; when that was
            found, by their flow's `changes`.
    """

    def __init__(self) -> None:
        self.marked: dict[Queue, None] = {}
        self.looks: RemovableHeap[Queue] = RemovableHeap()
        self.blocked: dict[Lane, int] = {}

    def mark(self, queue: Queue) -> None:
        """Have a queue looked at."""
        self.marked[queue] = None

    def mark_lane(self, lane: Lane) -> None:
        """Have all of a lane's queues looked at."""
        for queue in lane.queues.values():
            if queue.items.size:
                self.marked[queue] = None

    def mark_awaiting(self, lane: Lane) -> None:
        """Have those of a lane's queues looked at where jobs wait although workers are free."""
        for queue in lane.queues.values():
            if queue.awaited:
                self.marked[queue] = None

    def take(self) -> Queue:
        """Return the next marked queue: later stages first, pinned versions before any."""
        marked = self.marked
        queue = min(marked, key=_rank) if len(marked) > 1 else next(iter(marked))
        del marked[queue]
        return queue

    def look_at(self, queue: Queue, end: float | None) -> None:
        """Set when a queue has to be looked at without any event, in place of the former time.

        Args:
            queue: The queue.
            end: When a busy worker is predicted to be free; it is looked at a horizon before. None:
                never.
        """
        if end == queue.look:
            return
        queue.look = end
        if end is None:
            self.looks.remove(queue)
        else:
            self.looks.push(queue, end)

    def look_no_later(self, queue: Queue, end: float) -> None:
        """Set when a queue has to be looked at, unless it is sooner."""
        if queue.look is None:
            # If it is marked its time is not known, and found when it is looked at.
            if queue not in self.marked:
                self.look_at(queue, end)
        elif end < queue.look:
            self.look_at(queue, end)

    def mark_due(self, until: float) -> None:
        """Have the queues looked at whose time is not later than this."""
        looks = self.looks
        while looks.least <= until:
            first = looks.peek()
            if first is None or first[1] > until:
                return
            looks.pop()
            first[0].look = None
            self.mark(first[0])


def _rank(queue: Queue) -> tuple[int, str, bool, str]:
    return queue.rank
