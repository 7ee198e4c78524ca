"""Rate limits: one for the process, one for each transfer, shared fairly by connections. Pure.

A :class:`Throttle` is one direction of a process. Bytes are paid for at two token buckets, the
transfer's and the process's. A connection has a :class:`Lane`. It asks how many bytes may go
(:meth:`Throttle.room`), says how many went (:meth:`Throttle.spent`), and is called when it may go
on::

    free       it may go on: nothing limits it, or it holds credit
    waiting    ``room`` was 0: the lane stands in the one queue of its throttle
    free again the buckets hold a quantum, and nobody who could use it has waited longer

Each turn is one quantum, so lanes that always have something to move get the same. A lane that only
its own transfer's bucket holds up does not hold up others. What is spent beyond the credit (control
frames, which never wait) is owed, and paid before anybody's next turn.

So in any time t, at most ``rate * t`` and one burst are handed out as credit (property tests), and
each lane holds at most one quantum of credit it has not used.
Does NOT keep time: ``now`` is a parameter, ``shaper`` has the timer. Knows no sockets.
Threat: none from outside; a peer cannot make us owe more than its connection's control frames.
Tests: ``test_throttle``.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from attrs import Attribute, define, field, frozen

from p2pdist import limits
from p2pdist.errors import ConfigurationError

UNLIMITED: Final = 1 << 62
"""The room of a lane that nothing limits, in bytes."""


def _check(_instance: Any, attribute: Attribute[int | None], value: int | None) -> None:
    if value is not None and value < limits.RATE_LIMIT_MIN:
        raise ConfigurationError(
            f"{attribute.name} limit of {value} bytes/s: at least {limits.RATE_LIMIT_MIN} are "
            "needed, or peers take each other for stalled; 0 or none means unlimited"
        )


@frozen(kw_only=True)
class RateLimits:
    """Limits of TCP payload, framing included.

    Attributes:
        upload: bytes per second, at least ``limits.RATE_LIMIT_MIN``; ``None`` is unlimited.
        download: likewise.

    Raises:
        ConfigurationError: a limit is too low.
    """

    upload: int | None = field(default=None, validator=_check)
    download: int | None = field(default=None, validator=_check)


@define(eq=False)
class Bucket:
    """A token bucket; without a rate it takes everything.

    Attributes:
        rate: bytes per second, or ``None``.
    """

    rate: int | None = None
    _level: float = field(default=0.0, init=False)
    _at: float = field(default=0.0, init=False)

    @property
    def quantum(self) -> int:
        """Bytes of one turn: what takes ``limits.BLOCK_S``, within bounds."""
        if self.rate is None:
            return limits.QUANTUM_BYTES[1]
        least, most = limits.QUANTUM_BYTES
        return max(least, min(most, int(self.rate * limits.BLOCK_S)))

    @property
    def burst(self) -> float:
        """Bytes that gather while nobody asks."""
        assert self.rate is not None, "limited"
        return max(self.rate * limits.BURST_S, self.quantum)

    def set_rate(self, rate: int | None, now: float) -> None:
        """Begin anew with another rate, empty and without debts; the same changes nothing."""
        if rate != self.rate:
            self.rate, self._level, self._at = rate, 0.0, now

    def level(self, now: float) -> float:
        """Return the bytes there are; negative is owed."""
        if self.rate is None:
            return math.inf
        self._level = min(self.burst, self._level + (now - self._at) * self.rate)
        self._at = now
        return self._level

    def take(self, size: float) -> None:
        """Take bytes, also if that makes debts."""
        self._level -= size

    def wait_s(self, size: int, now: float) -> float:
        """Return the seconds until ``size`` bytes are there."""
        lacking = size - self.level(now)
        return 0.0 if self.rate is None or lacking <= 0 else lacking / self.rate


@define(eq=False)
class Lane:
    """One connection's place in a :class:`Throttle`.

    Args:
        bucket: of its transfer.
        resume: called when it may go on after having been told to wait; may ask for more at once.

    Attributes:
        credit: bytes it may move now, paid for already.
        waiting: whether it stands in the queue.
    """

    bucket: Bucket
    resume: Callable[[], None]
    credit: int = field(default=0, init=False)
    waiting: bool = field(default=False, init=False)


class Throttle:
    """One direction of one process.

    Attributes:
        total: the bucket that everything is paid at.
    """

    def __init__(self) -> None:
        self.total = Bucket()
        self._queue: deque[Lane] = deque()
        self._lanes: dict[Lane, None] = {}

    # --- lanes ---

    def lane(self, bucket: Bucket, resume: Callable[[], None]) -> Lane:
        """Open a lane of the transfer that ``bucket`` belongs to."""
        lane = Lane(bucket, resume)
        self._lanes[lane] = None
        return lane

    def close(self, lane: Lane) -> None:
        """Close a lane: it is called no more, what it did not use is given back. Again is fine."""
        if lane not in self._lanes:
            return
        del self._lanes[lane]
        if lane.waiting:
            lane.waiting = False
            self._queue.remove(lane)
        self._pay(lane, -lane.credit)
        lane.credit = 0

    def room(self, lane: Lane, now: float) -> int:
        """Return how many bytes may go now; at 0 the lane waits, and is resumed.

        A closed lane has room: nobody is to wait who would not be called.
        """
        if self._is_free(lane) or lane not in self._lanes:
            return UNLIMITED
        if not lane.credit and not lane.waiting:
            if self._poor(lane, now) or self._somebody_is_due(now):
                lane.waiting = True
                self._queue.append(lane)
            else:
                self._grant(lane)
        return lane.credit

    def spent(self, lane: Lane, size: int) -> None:
        """Bytes have gone: they are taken from the lane's credit, and what it lacks is owed."""
        if self._is_free(lane):
            return
        used = min(size, lane.credit)
        lane.credit -= used
        self._pay(lane, size - used)

    def _is_free(self, lane: Lane) -> bool:
        return lane.bucket.rate is None and self.total.rate is None

    def _quantum(self, lane: Lane) -> int:
        return min(lane.bucket.quantum, self.total.quantum)

    def _poor(self, lane: Lane, now: float) -> bool:
        """Tell whether one of the lane's buckets holds less than a quantum."""
        quantum = self._quantum(lane)
        return self.total.level(now) < quantum or lane.bucket.level(now) < quantum

    def _somebody_is_due(self, now: float) -> bool:
        first = {waiting.bucket: waiting for waiting in self._queue}
        return not all(self._poor(waiting, now) for waiting in first.values())

    def _grant(self, lane: Lane) -> None:
        lane.credit = self._quantum(lane)
        self._pay(lane, lane.credit)

    def _pay(self, lane: Lane, size: int) -> None:
        lane.bucket.take(size)
        self.total.take(size)

    # --- time ---

    def due_s(self, now: float) -> float | None:
        """Return the seconds until :meth:`serve` has something to do; ``None``: nobody waits."""
        quanta = {lane.bucket: self._quantum(lane) for lane in self._queue}
        return min(
            (
                max(self.total.wait_s(quantum, now), bucket.wait_s(quantum, now))
                for bucket, quantum in quanta.items()
            ),
            default=None,
        )

    def serve(self, now: float) -> None:
        """Let those go on who have waited longest, as far as the buckets reach."""
        served = True
        while served:
            served = False
            poor: set[Bucket] = set()
            for lane in tuple(self._queue):
                if not lane.waiting or lane.bucket in poor:
                    continue  # closed by one before it, or only its own transfer has to wait
                if self._poor(lane, now):
                    poor.add(lane.bucket)
                    continue
                self._queue.remove(lane)
                lane.waiting = False
                if not self._is_free(lane):
                    self._grant(lane)
                served = True
                lane.resume()

    # --- changes ---

    def set_rate(self, bucket: Bucket, rate: int | None, now: float) -> None:
        """Change the limit of a bucket from now on; :meth:`serve` is to be called then."""
        bucket.set_rate(rate, now)
        for lane in self._lanes:  # a credit of the old rate could be seconds of the new one
            lane.credit = min(lane.credit, self._quantum(lane))
