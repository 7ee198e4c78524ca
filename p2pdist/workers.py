"""Where blocking work runs: hashing, disk and DNS never run in the reactor thread.

The seam has two sides: :class:`ThreadWorkers` in production, and the simulator's own, which runs
the function at a seeded simulated delay. Tests: ``test_workers``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.internet.threads import deferToThreadPool
from twisted.python.threadpool import ThreadPool
from zope.interface import Interface, implementer

T = TypeVar("T")


class IWorkers(Interface):
    """Runs blocking functions off the reactor."""

    def run(function: Callable[[], T]) -> Deferred[T]:  # noqa: N805 -- zope style
        """Run ``function`` elsewhere.

        The Deferred fires in the reactor thread with its result, or fails with what it raised.
        Functions handed over one after the other may run at the same time and finish in any order.
        """


@implementer(IWorkers)
@define
class ThreadWorkers:
    """A small pool of threads of its own, so that slow disks cannot starve other users of threads.

    Args:
        reactor: whose thread the Deferreds fire in.
        threads: pool size, 1 or more.
    """

    reactor: IReactorFromThreads
    threads: int
    _pool: ThreadPool | None = field(default=None, init=False)

    def start(self) -> None:
        """Start the pool; call before the first :meth:`run`."""
        self._pool = ThreadPool(minthreads=0, maxthreads=self.threads, name="p2pdist")
        self._pool.start()

    def run(self, function: Callable[[], T]) -> Deferred[T]:
        """See :class:`IWorkers`."""
        assert self._pool is not None, "start() comes first"
        return deferToThreadPool(self.reactor, self._pool, function)

    def stop(self) -> None:
        """Wait for running functions and end the threads. Blocks; call after the last Deferred."""
        if self._pool is not None:
            self._pool.stop()
            self._pool = None
