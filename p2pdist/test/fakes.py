"""Small fakes of our own seams; each is checked against its interface by a test.

Tests: ``test_fakes``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

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


@define
class _Job:
    """A function that was handed over, and once it has run, how that went."""

    function: Callable[[], object]
    deliver: Callable[[Deferred[object]], object]
    outcome: Deferred[object] | None = None


@implementer(IWorkers)
@define
class StepWorkers:
    """Keeps functions until the test runs them: work that takes as long as the test likes.

    Attributes:
        waiting: what was handed over and not answered, oldest first.
    """

    waiting: list[_Job] = field(init=False, factory=list)

    def run(self, function: Callable[[], T]) -> Deferred[T]:
        """See :class:`IWorkers`."""
        result: Deferred[Any] = Deferred()
        self.waiting.append(_Job(function, lambda outcome: outcome.chainDeferred(result)))
        return result

    def compute(self, index: int = 0) -> None:
        """Run one waiting function; its answer is still on the way to the reactor thread."""
        job = self.waiting[index]
        assert job.outcome is None, "ran before"
        job.outcome = execute(job.function)

    def step(self, index: int = 0) -> None:
        """Run one waiting function, the oldest unless told, and deliver its answer."""
        if self.waiting[index].outcome is None:
            self.compute(index)
        job = self.waiting.pop(index)
        assert job.outcome is not None
        job.deliver(job.outcome)

    def finish(self) -> None:
        """Run functions until none waits, those they lead to as well."""
        while self.waiting:
            self.step()
