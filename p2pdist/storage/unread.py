"""Pieces that the disk would not give: looked at again until it does.

A read that fails says nothing about the bytes. The piece is withdrawn all the same, since it cannot
be served, and fetched from others; but where it was the only copy, the disk is all there is. So it
is read again every ``limits.DISK_RETRY_S``, and if it is good then, it is here again.

Job: that. Does NOT read, withdraw or record pieces (``store``). Tests: ``test_transfer``.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from p2pdist import limits


@define(eq=False)
class Unread:
    """The unread pieces of one store.

    Args:
        clock: says when.
        look: reads a piece and tells whether it is good and can count as just written.
        working: entered while a file is used.
        found: called with each piece that was read and is good.
    """

    _clock: IReactorTime
    _look_at: Callable[[int], Coroutine[Any, Any, bool]]
    _working: Callable[[], AbstractContextManager[None]]
    _found: Callable[[int], None]
    _indices: dict[int, None] = field(init=False, factory=dict)
    _timer: IDelayedCall | None = field(init=False, default=None)
    _stopped: bool = field(init=False, default=False)

    def add(self, index: int) -> None:
        """Look at a piece again later."""
        self._indices[index] = None
        self._wait()

    def stop(self) -> None:
        """Look no more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        if self._timer is None and self._indices and not self._stopped:
            self._timer = self._clock.callLater(limits.DISK_RETRY_S, self._due)

    def _due(self) -> None:
        self._timer = None
        Deferred.fromCoroutine(self._look())

    async def _look(self) -> None:
        indices, self._indices = self._indices, {}
        for index in indices:
            if self._stopped:
                return
            with self._working():
                try:
                    good = await self._look_at(index)
                except OSError:
                    self._indices[index] = None
                    continue
            if good and not self._stopped:
                self._found(index)
        self._wait()
