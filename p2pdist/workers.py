"""Where blocking work runs: hashing, disk and DNS never run in the reactor thread.

The seam has two sides: :class:`ThreadWorkers` in production, and the simulator's own, which runs
the function at a seeded simulated delay. Tests: ``test_workers``.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any, TypeVar, cast

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

T = TypeVar("T")


class IWorkers(Interface):
    """Runs blocking functions off the reactor."""

    def run(function: Callable[[], T]) -> Deferred[T]:  # noqa: N805 -- zope style
        """Run ``function`` elsewhere.

        The Deferred fires in the reactor thread with its result, or fails with what it raised.
        Functions handed over one after the other may run at the same time and finish in any order.
        """


def when_over(work: Deferred[Any]) -> Deferred[None]:
    """Return a Deferred that fires when ``work`` has fired or failed; its result stays its own."""
    waiting: Deferred[None] = Deferred()

    def over(result: object) -> object:
        waiting.callback(None)
        return result

    work.addBoth(over)
    return waiting


@implementer(IWorkers)
@define
class ThreadWorkers:
    """A few threads of its own, so that slow disks cannot starve other users of threads.

    Leaner than Twisted's pool, which takes several locks for each call: a transfer makes a call
    for every piece, and each lock is a chance to lose the interpreter to another thread.

    Args:
        reactor: whose thread the Deferreds fire in.
        threads: pool size, 1 or more; they start as they are needed.
    """

    reactor: IReactorFromThreads
    threads: int
    _running: list[threading.Thread] = field(init=False, factory=list)
    _jobs: SimpleQueue[tuple[Deferred[Any], Callable[[], Any]] | None] = field(
        init=False, factory=SimpleQueue
    )
    _results: deque[tuple[Deferred[Any], Any]] = field(init=False, factory=deque)
    _waiting: int = field(init=False, default=0)
    """Jobs handed over whose result has not come back."""
    _started: bool = field(init=False, default=False)

    def start(self) -> None:
        """Open the pool; call before the first :meth:`run`."""
        self._started = True

    def run(self, function: Callable[[], T]) -> Deferred[T]:
        """See :class:`IWorkers`."""
        assert self._started, "start() comes first"
        self._waiting += 1
        if len(self._running) < min(self._waiting, self.threads):
            thread = threading.Thread(target=self._work, name="p2pdist")
            self._running.append(thread)
            thread.start()
        waiting: Deferred[T] = Deferred()
        self._jobs.put((waiting, function))
        return waiting

    def _work(self) -> None:
        """Do jobs until there is an end of them; in a thread of the pool."""
        while (job := self._jobs.get()) is not None:
            waiting, function = job
            try:
                result = function()
            except BaseException:  # noqa: BLE001 -- whatever it is, it belongs to the caller
                result = cast("Any", Failure())
            self._results.append((waiting, result))
            self.reactor.callFromThread(self._deliver)
            del job, waiting, function, result  # not kept while waiting for the next

    def _deliver(self) -> None:
        """Fire all that is done; in the reactor's thread, once for each job at least."""
        while self._results:
            waiting, result = self._results.popleft()
            self._waiting -= 1
            waiting.callback(result)

    def stop(self) -> None:
        """Wait for running functions and end the threads. Blocks; call after the last Deferred."""
        self._started = False
        for _ in self._running:
            self._jobs.put(None)
        for thread in self._running:
            thread.join()
        self._running.clear()
