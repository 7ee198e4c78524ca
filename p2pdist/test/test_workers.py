"""Tests of the threads that blocking work runs in.

The reactor is a stand-in that keeps what threads hand over until the test runs it; joining the
pool's threads (``stop``) replaces waiting.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IReactorFromThreads
from zope.interface import implementer
from zope.interface.verify import verifyObject

from p2pdist import limits
from p2pdist.test.support import TestCase
from p2pdist.workers import IWorkers, ThreadWorkers


@implementer(IReactorFromThreads)
@define
class ReactorFromThreads:
    """Keeps calls from threads until :meth:`turn`."""

    calls: list[Callable[[], Any]] = field(factory=list)

    def callFromThread(self, callable: Callable[..., Any], *args: Any, **kwargs: Any) -> None:  # noqa: A002
        """See IReactorFromThreads."""
        self.calls.append(lambda: callable(*args, **kwargs))

    def turn(self) -> None:
        """Run what came in, in this thread."""
        calls, self.calls = self.calls, []
        for call in calls:
            call()


class ThreadWorkersTests(TestCase):
    """The production side of the seam."""

    def setUp(self):
        """Start a pool."""
        self.reactor = ReactorFromThreads()
        self.workers = ThreadWorkers(self.reactor, limits.DISK_THREADS)
        self.workers.start()
        self.addCleanup(self.workers.stop)

    def test_interface(self):
        """It is what the others expect."""
        self.assertTrue(verifyObject(IWorkers, self.workers))

    def test_result_comes_in_the_reactor_thread(self):
        """The function runs elsewhere; its result waits for the reactor's turn."""
        waiting = self.workers.run(threading.get_ident)
        self.workers.stop()
        self.assert_waiting(waiting)
        seen = waiting.addCallback(lambda ident: (ident, threading.get_ident()))
        self.reactor.turn()
        worker, reactor = self.result_of(seen)
        self.assertEqual(threading.get_ident(), reactor)
        self.assertNotEqual(worker, reactor)

    def test_failure_comes_out(self):
        """What the function raises, the Deferred fails with."""

        def fail() -> None:
            raise KeyError("x")

        waiting = self.workers.run(fail)
        self.workers.stop()
        self.reactor.turn()
        self.assertEqual(("x",), self.error_of(waiting, KeyError).args)

    def test_functions_run_together(self):
        """Functions handed over one after the other run at the same time."""
        together = threading.Barrier(limits.DISK_THREADS, timeout=60)
        waiting = [self.workers.run(together.wait) for _ in range(limits.DISK_THREADS)]
        self.workers.stop()
        self.reactor.turn()
        self.assertEqual(
            list(range(limits.DISK_THREADS)), sorted(self.result_of(one) for one in waiting)
        )

    def test_stopping(self):
        """Stopping ends the threads, may be repeated, and running afterwards is our bug."""
        before = threading.active_count()
        self.workers.run(int)
        self.workers.stop()
        self.workers.stop()
        self.assertLessEqual(threading.active_count(), before)
        self.assertRaises(AssertionError, self.workers.run, int)
