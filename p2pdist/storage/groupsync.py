"""When a store syncs: on demand, after a while, and many calls at once.

Job: share one sync among all who ask while it waits for its turn, keep the timer of the next. On a
disk slower than the network each piece would otherwise add a sync, and each would resume the next
inside of itself. Does NOT know what a sync does. Tests: ``test_store``.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, cast

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

from p2pdist.errors import StorageError


@define(eq=False)
class GroupSync:
    """The syncs of one store.

    Args:
        clock: time.
        turn: held while a sync runs.
        flush: syncs; called with the turn held, may raise.
        failed: told of a timed sync that failed, which nobody waits for.
    """

    _clock: IReactorTime
    _turn: DeferredLock
    _flush: Callable[[], Coroutine[Any, Any, None]]
    _failed: Callable[[StorageError], None]
    _waiting: list[Deferred[None]] = field(init=False, factory=list)
    """Calls whose turn has not come."""
    _timer: IDelayedCall | None = field(init=False, default=None)

    def call(self) -> Deferred[None]:
        """Sync what was written before now; fires or fails as ``flush`` ends."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        if len(self._waiting) == 1:
            Deferred.fromCoroutine(self._run())
        return waiting

    async def _run(self) -> None:
        outcome: Failure | None = None
        async with self._turn:
            together, self._waiting = self._waiting, []
            try:
                await self._flush()
            except GeneratorExit:
                raise  # nobody waits any more: all of it is being forgotten
            except BaseException:  # noqa: BLE001 -- whatever it is, it belongs to those who wait
                outcome = Failure()
        for waiting in together:
            waiting.callback(cast("Any", outcome))

    def within(self, delay_s: float) -> None:
        """See to it that a sync begins in at most ``delay_s``."""
        if self._timer is not None:
            if self._timer.getTime() <= self._clock.seconds() + delay_s:
                return
            self._timer.cancel()
        self._timer = self._clock.callLater(delay_s, self._timed)

    def cancel(self) -> None:
        """Forget the timer; again is fine."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _timed(self) -> None:
        self._timer = None
        if not self._waiting:
            self.call().addErrback(self._eb_timed)

    def _eb_timed(self, failure: Failure) -> None:
        failure.trap(StorageError)
        error = failure.value
        assert isinstance(error, StorageError)
        self._failed(error)
