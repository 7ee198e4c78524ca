"""Small fakes of our own seams; each is checked against its interface by a test.

Tests: ``test_fakes``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, execute
from zope.interface import implementer

from p2pdist.workers import IWorkers

T = TypeVar("T")


@implementer(IWorkers)
@define
class ImmediateWorkers:
    """Runs each function at once, in :meth:`run`.

    Attributes:
        count: functions run so far.
    """

    count: int = field(init=False, default=0)

    def run(self, function: Callable[[], T]) -> Deferred[T]:
        """See :class:`IWorkers`."""
        self.count += 1
        return execute(function)


@implementer(IWorkers)
@define
class StepWorkers:
    """Keeps functions until the test runs them: work that takes as long as the test likes.

    Attributes:
        waiting: what was handed over and has not run, oldest first.
    """

    waiting: list[Callable[[], object]] = field(init=False, factory=list)

    def run(self, function: Callable[[], T]) -> Deferred[T]:
        """See :class:`IWorkers`."""
        result: Deferred[T] = Deferred()
        self.waiting.append(lambda: execute(function).chainDeferred(result))
        return result

    def step(self, index: int = 0) -> None:
        """Run one waiting function, the oldest unless told."""
        self.waiting.pop(index)()

    def finish(self) -> None:
        """Run functions until none waits, those they lead to as well."""
        while self.waiting:
            self.step()
