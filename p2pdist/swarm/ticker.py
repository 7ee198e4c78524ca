"""When a transfer looks at its deadlines: often, and seldom while nothing goes on.

Job: the timer; a thousand contents at rest should cost next to nothing. Does NOT know what is
looked at. Tests: ``test_ticker``.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from p2pdist import limits


@define(eq=False)
class Ticker:
    """The timer of one transfer.

    Args:
        clock: time.
        tick: called with now, every ``limits.TICK_S``, or every ``limits.REST_TICK_S`` at rest.
        rests: tells whether nothing is going on; asked ``limits.REST_AFTER_S`` after ``stir``.
    """

    clock: IReactorTime
    tick: Callable[[float], None]
    rests: Callable[[], bool]
    _timer: IDelayedCall | None = field(init=False, default=None)
    _stirred_at: float = field(init=False, default=0.0)

    def start(self) -> None:
        """Begin."""
        self._stirred_at = self.clock.seconds()
        self._timer = self.clock.callLater(limits.TICK_S, self._fire)

    def stir(self) -> None:
        """Something happened: tick often again, if at all."""
        now = self._stirred_at = self.clock.seconds()
        if self._timer is not None and self._timer.getTime() > now + limits.TICK_S:
            self._timer.reset(limits.TICK_S)

    def stop(self) -> None:
        """Tick no more; again is fine."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        now = self.clock.seconds()
        rests = now - self._stirred_at >= limits.REST_AFTER_S and self.rests()
        pause = limits.REST_TICK_S if rests else limits.TICK_S
        self._timer = self.clock.callLater(pause, self._fire)
        self.tick(now)
