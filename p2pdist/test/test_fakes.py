"""Tests of :mod:`p2pdist.test.fakes`."""

from __future__ import annotations

from functools import partial

from zope.interface.verify import verifyObject

from p2pdist.test.fakes import ImmediateWorkers, StepWorkers
from p2pdist.test.support import TestCase
from p2pdist.workers import IWorkers


class WorkersTests(TestCase):
    """The two fakes of IWorkers."""

    def test_fakes_provide_the_interface(self) -> None:
        """Both can stand where workers stand."""
        for workers in (ImmediateWorkers(), StepWorkers()):
            verifyObject(IWorkers, workers)

    def test_immediate_workers_run_at_once(self) -> None:
        """The Deferred has fired when it comes, with the result or the error."""
        workers = ImmediateWorkers()
        self.assertEqual(3, self.result_of(workers.run(lambda: 3)))
        self.error_of(workers.run(lambda: 1 // 0), ZeroDivisionError)
        self.assertEqual(2, workers.count)

    def test_step_workers_wait_for_the_test(self) -> None:
        """Functions run when told, in the order told."""
        workers = StepWorkers()
        ran: list[int] = []
        both = [workers.run(partial(ran.append, number)) for number in (1, 2)]
        self.assert_waiting(both[0])
        workers.step(1)
        self.assertEqual([2], ran)
        self.assert_waiting(both[0])
        self.result_of(both[1])
        workers.finish()
        self.result_of(both[0])
        self.assertEqual([2, 1], ran)

    def test_answers_may_be_on_the_way(self) -> None:
        """What was computed has happened, but nobody knows yet."""
        workers = StepWorkers()
        ran: list[int] = []
        running = workers.run(partial(ran.append, 1))
        workers.compute()
        self.assertEqual([1], ran)
        self.assert_waiting(running)
        workers.step()
        self.result_of(running)
        self.assertEqual([1], ran)
