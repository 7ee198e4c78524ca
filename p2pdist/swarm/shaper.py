"""The rate limits of a process, on a clock: what ``throttle`` decides, at the right time.

::

    Shaper           one process: its own limits, one Throttle and one timer for each direction
    `- Share         one transfer's limits below them
         `- Gate     one direction of one connection; what ``connection`` and ``sender`` ask

Uploading, blocks of pieces and metadata wait at the gate before they are cut; control frames are
only counted. Downloading, a connection whose gate has no room stops reading, and TCP tells the
other side; and fewer pieces are asked for at the same time, so that none takes for ever. Without a
limit no timer ever runs, with one only while somebody waits.
Does NOT decide who may go; does not count datagrams, which have limits of their own (``guard``).
Tests: ``test_shaper``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final
from typing import Protocol as Structural

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from p2pdist import limits
from p2pdist.swarm.assembly import AssemblyBudget
from p2pdist.swarm.throttle import UNLIMITED, Bucket, Lane, RateLimits, Throttle


class Gate(Structural):
    """What a connection asks before it moves bytes in one direction."""

    def room(self) -> int:
        """Return how many bytes may go now; at 0 we are called when more may go."""

    def spent(self, size: int) -> None:
        """So many bytes have gone, asked for or not."""

    def close(self) -> None:
        """Nothing goes any more; again is fine."""


class _OpenGate:
    def room(self) -> int:
        return UNLIMITED

    def spent(self, size: int) -> None:
        """Nobody counts."""

    def close(self) -> None:
        """Nothing to do."""


OPEN_GATE: Final[Gate] = _OpenGate()
"""Of connections that no transfer has taken yet: a handshake is a few hundred bytes."""


@define(eq=False)
class _Direction:
    """A throttle and the timer that serves it."""

    clock: IReactorTime
    throttle: Throttle = field(factory=Throttle, init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)
    _serving: bool = field(default=False, init=False)

    def room(self, lane: Lane) -> int:
        room = self.throttle.room(lane, self.clock.seconds())
        if not room:
            self._set_timer()
        return room

    def close(self, lane: Lane) -> None:
        self.throttle.close(lane)
        self._set_timer()

    def set_rate(self, bucket: Bucket, rate: int | None) -> None:
        self.throttle.set_rate(bucket, rate, self.clock.seconds())
        self._serve()

    def _serve(self) -> None:
        self._serving = True
        try:
            self.throttle.serve(self.clock.seconds())
        finally:
            self._serving = False
            self._set_timer()

    def _set_timer(self) -> None:
        """Have the timer run when the next turn is due, and only if one will be."""
        if self._serving:
            return  # once, at the end
        now = self.clock.seconds()
        due_s = self.throttle.due_s(now)
        due = None if due_s is None else now + max(due_s, limits.TURNS_S)
        if self._timer is not None:
            if due is not None and self._timer.getTime() <= due:
                return
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer = self.clock.callLater(due - now, self._due)

    def _due(self) -> None:
        self._timer = None
        self._serve()


@define(eq=False)
class _LaneGate:
    """See :class:`Gate`."""

    direction: _Direction
    lane: Lane

    def room(self) -> int:
        return self.direction.room(self.lane)

    def spent(self, size: int) -> None:
        self.direction.throttle.spent(self.lane, size)

    def close(self) -> None:
        self.direction.close(self.lane)


@define(kw_only=True)
class _Appetite(AssemblyBudget):
    """Asks for no more than comes in ``limits.ASKED_S``, but for one piece.

    Many senders of which each is read slowly would all look as if we had stalled, and each piece
    would be on its way for minutes. Used bytes are counted here for the transfer, and in ``whole``.
    """

    whole: AssemblyBudget
    rates: Callable[[], tuple[int | None, int | None]]

    def fits(self, size: int) -> bool:
        total, own = self.rates()
        return (
            self.whole.fits(size)
            and (total is None or self.whole.used_bytes + size <= total * limits.ASKED_S)
            and (own is None or self.used_bytes + size <= own * limits.ASKED_S)
        )

    def take(self, size: int) -> None:
        self.used_bytes += size
        self.whole.take(size)

    def give(self, size: int) -> None:
        self.used_bytes -= size
        self.whole.give(size)

    def when_freed(self, owner: object, tell: Callable[[], None]) -> None:
        self.whole.when_freed(owner, tell)

    def forget(self, owner: object) -> None:
        self.whole.forget(owner)


class Shaper:
    """The rate limits of one process.

    Args:
        clock: time.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._up = _Direction(clock)
        self._down = _Direction(clock)

    @property
    def limits(self) -> RateLimits:
        """What all transfers may move together."""
        return RateLimits(
            upload=self._up.throttle.total.rate, download=self._down.throttle.total.rate
        )

    def set_limits(self, wanted: RateLimits) -> None:
        """Change them, from now on."""
        self._up.set_rate(self._up.throttle.total, wanted.upload)
        self._down.set_rate(self._down.throttle.total, wanted.download)

    def share(self) -> Share:
        """Return what one more transfer obeys."""
        return Share(self._up, self._down)


class Share:
    """The rate limits of one transfer, below those of its process; none at first."""

    def __init__(self, up: _Direction, down: _Direction) -> None:
        self._up = up
        self._down = down
        self._up_bucket = Bucket()
        self._down_bucket = Bucket()

    @property
    def limits(self) -> RateLimits:
        """What this transfer may move."""
        return RateLimits(upload=self._up_bucket.rate, download=self._down_bucket.rate)

    def set_limits(self, wanted: RateLimits) -> None:
        """Change them, from now on."""
        self._up.set_rate(self._up_bucket, wanted.upload)
        self._down.set_rate(self._down_bucket, wanted.download)

    def within(self, whole: AssemblyBudget) -> AssemblyBudget:
        """Return this transfer's part of the process's budget, as the download limits allow it."""
        return _Appetite(whole=whole, rates=self._download_rates)

    def _download_rates(self) -> tuple[int | None, int | None]:
        return self._down.throttle.total.rate, self._down_bucket.rate

    def upload_gate(self, resume: Callable[[], None]) -> Gate:
        """Return the way out of one more connection; ``resume`` is called when it may go on."""
        return _LaneGate(self._up, self._up.throttle.lane(self._up_bucket, resume))

    def download_gate(self, resume: Callable[[], None]) -> Gate:
        """Return its way in."""
        return _LaneGate(self._down, self._down.throttle.lane(self._down_bucket, resume))
