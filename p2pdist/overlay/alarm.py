"""One delayed call of the reactor for the many timeouts of a network's calls.

Job: remember when each waits no longer, and say so. A timeout of its own from the reactor takes
3 us to make and to cancel, and nearly all are cancelled: answers come. Here setting one is a push
onto a heap, and cancelling it nothing but a number changed. It does NOT know what is waited for.

Threat: calls that end faster than their timeouts come leave entries behind; from
``limits.ALARM_SPARE`` on there are never more than there are waiting. Tests: ``test_alarm``.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from p2pdist import limits

NEVER = float("inf")


class Waiting(Protocol):
    """What waits: until ``due``; whoever cancels its timeout sets that to :data:`NEVER`."""

    due: float


W = TypeVar("W", bound=Waiting)


@define(eq=False)
class Alarm(Generic[W]):
    """Tells whose time has come, in the order of their times, never early.

    Args:
        clock: has the one delayed call.
        overdue: called with whoever waited long enough, and waits for nothing now.
    """

    clock: IReactorTime
    overdue: Callable[[W], None]
    _queue: list[tuple[float, int, W]] = field(init=False, factory=list)
    """A heap; an entry whose time is not its waiter's any more counts for nothing."""
    _made: int = field(init=False, default=0)
    _spare: int = field(init=False, default=limits.ALARM_SPARE)
    _call: IDelayedCall | None = field(init=False, default=None)
    _rings_at: float = field(init=False, default=NEVER)

    def set(self, waiting: W, due: float) -> None:
        """Let ``waiting`` wait until ``due``, and not until what was set before."""
        waiting.due = due
        self._made += 1
        heapq.heappush(self._queue, (due, self._made, waiting))
        if due < self._rings_at:
            self._ring_at(due)
        if len(self._queue) > self._spare:
            self._tidy()

    def _ring_at(self, when: float) -> None:
        self._rings_at = when
        seconds = max(0.0, when - self.clock.seconds())
        if self._call is None:
            self._call = self.clock.callLater(seconds, self._ring)
        else:
            self._call.reset(seconds)

    def _ring(self) -> None:
        self._call, self._rings_at = None, NEVER
        queue, now = self._queue, self.clock.seconds()
        try:
            while queue and (queue[0][0] <= now or queue[0][2].due != queue[0][0]):
                due, _, waiting = heapq.heappop(queue)
                if waiting.due == due:
                    waiting.due = NEVER
                    self.overdue(waiting)
        finally:  # a bug in one must not leave the others waiting for ever
            if queue and queue[0][0] < self._rings_at:
                self._ring_at(queue[0][0])

    def _tidy(self) -> None:
        """Drop what counts for nothing; the next time when there is twice as much as is left."""
        self._queue[:] = [entry for entry in self._queue if entry[2].due == entry[0]]
        heapq.heapify(self._queue)
        self._spare = max(limits.ALARM_SPARE, 2 * len(self._queue))

    def stop(self) -> None:
        """Call nobody any more."""
        self._queue.clear()
        if self._call is not None:
            self._call.cancel()
            self._call, self._rings_at = None, NEVER

    def __len__(self) -> int:
        return len(self._queue)
