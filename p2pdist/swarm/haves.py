"""Telling peers what we have: the first piece at once, those that follow quickly some at a time.

Does NOT know who listens. Tests: ``test_sender``.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from p2pdist import limits
from p2pdist.ids import PieceIndex
from p2pdist.swarm.messages import Have


@define(eq=False)
class HaveBatch:
    """Collects up to ``limits.HAVE_TOGETHER`` verified pieces for up to ``limits.HAVE_EVERY_S``.

    Args:
        clock: time.
        send: told each message to send to everybody.
    """

    clock: IReactorTime
    send: Callable[[Have], None]
    _indices: list[PieceIndex] = field(factory=list, init=False)
    _sent_at: float | None = field(default=None, init=False)
    _timer: IDelayedCall | None = field(default=None, init=False)

    def add(self, index: PieceIndex) -> None:
        """Tell of a piece soon."""
        self._indices.append(index)
        now = self.clock.seconds()
        due = now if self._sent_at is None else self._sent_at + limits.HAVE_EVERY_S
        if now >= due or len(self._indices) >= limits.HAVE_TOGETHER:
            self.flush()
        elif self._timer is None:
            self._timer = self.clock.callLater(due - now, self._timed_flush)

    def _timed_flush(self) -> None:
        self._timer = None
        self.flush()

    def flush(self) -> None:
        """Tell of everything now."""
        self._cancel()
        self._sent_at = self.clock.seconds()
        indices, self._indices = self._indices, []
        if indices:
            self.send(Have(tuple(indices)))

    def stop(self) -> None:
        """Tell nothing more."""
        self._cancel()
        self._indices.clear()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
