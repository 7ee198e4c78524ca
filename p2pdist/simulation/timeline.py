"""Simulated time: a heap of events, each run at its own moment, and Twisted's delayed calls on it.

Job: order and run events, and stop runs that go nowhere. Does NOT know hosts or packets
(``simwires``). Nothing sorts, nothing reads a clock: events at one moment run in the order in
which they were made. Tests: ``test_simreactor``.

A host's life from start to crash is a :class:`Boot`; it owns the events that are its process's
work. A halted boot's events wait (paused) or vanish (dead); :data:`KERNEL` owns what happens
outside processes, in wires and sockets, and never halts.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, Final

from twisted.internet.error import AlreadyCalled, AlreadyCancelled
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from zope.interface import implementer

EVENTS_PER_INSTANT: Final = 200_000
"""More events at one moment mean that they make each other for ever."""

Event = tuple[float, int, "Boot", Callable[..., object], tuple[Any, ...]]


class Stuck(AssertionError):
    """The simulation did not get where it should."""


class Boot:
    """One life of a host's process; owner of its events.

    Attributes:
        alive: false once it ended.
        halted: whether its events do not run now: paused or ended.
    """

    __slots__ = ("_held", "alive", "halted")

    def __init__(self) -> None:
        self.alive = True
        self.halted = False
        self._held: list[tuple[Callable[..., object], tuple[Any, ...]]] = []

    def hold(self, call: Callable[..., object], args: tuple[Any, ...]) -> None:
        """Keep an event for :meth:`resume`; an ended boot forgets it."""
        if self.alive:
            self._held.append((call, args))

    def pause(self) -> None:
        """Let events wait from now on, as SIGSTOP does."""
        self.halted = True

    def resume(self, timeline: Timeline) -> None:
        """Go on: what waited runs now, in its order."""
        if not self.alive:
            return
        self.halted = False
        held, self._held = self._held, []
        for call, args in held:
            timeline.at(timeline.now, self, call, *args)

    def end(self) -> None:
        """Forget all events, for ever."""
        self.alive = False
        self.halted = True
        self._held.clear()


KERNEL: Final = Boot()
"""Owner of events that are nobody's process."""


class Timeline:
    """The heap of events.

    Attributes:
        seed: printed wherever a run fails.
        now: simulated seconds since the start.
        events: how many ran.
        events_max: a run with more is stopped.
        after_event: called after every event: safety checks, which raise AssertionError.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now = 0.0
        self.events = 0
        self.events_max = 20_000_000
        self.after_event: list[Callable[[], object]] = []
        self._heap: list[Event] = []
        self._made = 0
        self._at_this_instant = 0

    def at(self, when: float, owner: Boot, call: Callable[..., object], *args: Any) -> None:
        """Run ``call(*args)`` at the time ``when``, not before now, as ``owner``'s work."""
        self._made += 1
        heapq.heappush(self._heap, (when, self._made, owner, call, args))

    def step(self) -> None:
        """Run the next event, then the checks.

        Raises:
            Stuck: too many events, at one moment or in all.
            AssertionError: a check failed; the text names seed and time.
            IndexError: nothing is left to happen.
        """
        when, _, owner, call, args = heapq.heappop(self._heap)
        if when > self.now:
            self.now = when
            self._at_this_instant = 0
        self.events += 1
        self._at_this_instant += 1
        if self._at_this_instant > EVENTS_PER_INSTANT or self.events > self.events_max:
            raise Stuck(f"too many events, the last is {call}; {self.state()}")
        if owner.halted:
            owner.hold(call, args)
        else:
            call(*args)
        if self.after_event:
            self._check()

    def _check(self) -> None:
        try:
            for check in self.after_event:
                check()
        except AssertionError as error:
            raise AssertionError(f"{error}; {self.state()}") from error

    def run(self, seconds: float) -> None:
        """Run everything that happens in the next ``seconds``; then it is so much later."""
        end = self.now + seconds
        heap = self._heap
        while heap and heap[0][0] <= end:
            self.step()
        self._pass_to(end)

    def run_until(self, predicate: Callable[[], object], timeout: float = 60.0) -> float:
        """Run until ``predicate()`` is true, asking after every event.

        Returns:
            The simulated seconds it took.

        Raises:
            Stuck: still false ``timeout`` seconds later.
        """
        start = self.now
        heap = self._heap
        while not predicate():
            if not heap or heap[0][0] > start + timeout:
                self._pass_to(start + timeout)
                raise Stuck(f"not reached within {timeout} s; {self.state()}")
            self.step()
        return self.now - start

    def _pass_to(self, when: float) -> None:
        if when > self.now:
            self.now = when
            self._at_this_instant = 0

    def state(self) -> str:
        """Return one line for the text of a failure."""
        return f"seed {self.seed}, time {self.now:.6f} s, {self.events} events"


@implementer(IDelayedCall)
class DelayedCall:
    """Twisted's delayed call.

    Its place in the heap is never looked for: a call that was put off finds on its turn that it is
    not due and queues again, a cancelled one or one brought forward leaves a dead entry behind.

    Args:
        timeline: where it runs.
        boot: whose work it is.
        pending: the reactor's calls in the order of their making; this adds and removes itself.
        when: absolute time.
        work: function, positional and keyword arguments.
    """

    __slots__ = ("_boot", "_pending", "_queued", "_state", "_timeline", "_when", "_work")

    _log = Logger()

    def __init__(
        self,
        timeline: Timeline,
        boot: Boot,
        pending: dict[DelayedCall, None],
        when: float,
        work: tuple[Callable[..., object], tuple[Any, ...], dict[str, Any]],
    ) -> None:
        self._timeline = timeline
        self._boot = boot
        self._pending = pending
        self._when = when
        self._work: tuple[Callable[..., object], tuple[Any, ...], dict[str, Any]] | None = work
        self._state: type[Exception] | None = None  # what a further cancel raises
        self._queued = when
        pending[self] = None
        timeline.at(when, boot, self._turn, when)

    def __repr__(self) -> str:
        what = self._work[0] if self._work else self._state
        return f"<DelayedCall at {self._when:.6f} s of {what}>"

    def _turn(self, queued: float) -> None:
        if queued != self._queued or self._work is None:
            return
        if self._when > queued:
            self._queue()
            return
        function, args, kwargs = self._work
        self._finish(AlreadyCalled)
        try:
            function(*args, **kwargs)
        except Exception:  # noqa: BLE001 -- as the real reactor: log it and go on
            self._log.failure("unhandled error in a delayed call")

    def _queue(self) -> None:
        self._queued = self._when
        self._timeline.at(self._when, self._boot, self._turn, self._when)

    def _finish(self, state: type[Exception]) -> None:
        self._state = state
        self._work = None
        del self._pending[self]

    def _move(self, when: float) -> None:
        if self._state is not None:
            raise self._state
        self._when = max(when, self._timeline.now)
        if self._when < self._queued:
            self._queue()

    def getTime(self) -> float:
        """See :class:`IDelayedCall`."""
        return self._when

    def cancel(self) -> None:
        """See :class:`IDelayedCall`."""
        if self._state is not None:
            raise self._state
        self._finish(AlreadyCancelled)

    def delay(self, secondsLater: float) -> None:
        """See :class:`IDelayedCall`."""
        self._move(self._when + secondsLater)

    def reset(self, secondsFromNow: float) -> None:
        """See :class:`IDelayedCall`."""
        self._move(self._timeline.now + secondsFromNow)

    def active(self) -> bool:
        """See :class:`IDelayedCall`."""
        return self._state is None
