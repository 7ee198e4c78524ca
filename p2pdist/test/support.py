"""What every test stands on: the base :class:`TestCase` and Hypothesis as trial needs it.

Job: close the traps that make a broken test look green. Does NOT hold fakes or fixtures
(``strategies``, ``network``). Import ``given`` from here, never from Hypothesis: the import also
loads the settings profile, so it must come before any ``@settings``. Tests: ``test_support``.

Profiles, chosen by ``P2PDIST_HYPOTHESIS_PROFILE`` or, without it, by ``CI``: ``dev`` draws new
examples in each run, ``ci`` the same ones for ever. Neither knows a deadline: this house does not
measure wall time in tests.
"""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from types import EllipsisType
from typing import Any, TypeVar

import hypothesis
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test
from hypothesis.strategies import SearchStrategy
from twisted.internet.defer import Deferred
from twisted.trial.unittest import FailTest, SynchronousTestCase

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)

_COMMON = hypothesis.settings(
    deadline=None,
    max_examples=60,
    stateful_step_count=30,
    database=None,  # trial empties its folder; a failure prints its example and its blob instead
    report_multiple_bugs=False,  # one failure at a time, never an exception group
    suppress_health_check=[hypothesis.HealthCheck.too_slow],  # judged by wall time
)
hypothesis.settings.register_profile("dev", _COMMON, derandomize=False, print_blob=True)
hypothesis.settings.register_profile("ci", _COMMON, derandomize=True)


def profile_name(environ: dict[str, str]) -> str:
    """Return which settings profile ``environ`` asks for."""
    return environ.get("P2PDIST_HYPOTHESIS_PROFILE") or ("ci" if environ.get("CI") else "dev")


hypothesis.settings.load_profile(profile_name(dict(os.environ)))


class Falsified(FailTest):
    """A property does not hold; the text ends with the example that shows it."""


@contextmanager
def _example_in_text() -> Generator[None]:
    """Turn an exception with notes, which trial does not print, into one that says it all."""
    try:
        yield
    except Exception as error:
        notes: list[str] = getattr(error, "__notes__", [])
        if not notes:
            raise
        text = "\n".join([f"{type(error).__name__}: {error}", *notes])
        raise Falsified(text).with_traceback(error.__traceback__) from None


def given(
    *arguments: SearchStrategy[Any] | EllipsisType, **keywords: SearchStrategy[Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorate a test as :func:`hypothesis.given` does; a failure's text holds the example.

    ``@settings`` and ``@example`` may stand above or below.

    Raises:
        Falsified: in the test, in place of whatever the falsifying example raised.
    """
    decorate = hypothesis.given(*arguments, **keywords)

    def wrap(test: Callable[..., None]) -> Callable[..., None]:
        property_test = decorate(test)

        @functools.wraps(property_test, updated=())
        def run(*args: Any, **kwargs: Any) -> None:
            with _example_in_text():
                property_test(*args, **kwargs)

        # One dict for both: @settings and @example write attributes that the inner one reads.
        run.__dict__ = property_test.__dict__
        return run

    return wrap


def unmeasured(case: SynchronousTestCase) -> None:
    """Let the processes that a test starts run without coverage, which doubles their work.

    For tests of many or long processes; others run the same lines, and are measured.
    """
    kept = {name: text for name, text in os.environ.items() if "COVERAGE_" not in name}
    case.patch(os, "environ", kept)


def run_machine(machine: type[RuleBasedStateMachine]) -> None:
    """Run a Hypothesis state machine inside a test method.

    ``machine.TestCase`` would silently not be collected by trial.

    Raises:
        Falsified: with the steps that broke it.
    """
    with _example_in_text():
        run_state_machine_as_test(machine)


class TestCase(SynchronousTestCase):
    """Base of all tests: synchronous, and deaf to none of its own mistakes.

    trial already fails a test that left an error in the log (``flushLoggedErrors`` takes expected
    ones out). ``async def test_x`` would pass without running, so such a class is refused.
    """

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        for name, member in vars(cls).items():
            if name.startswith("test") and inspect.iscoroutinefunction(member):
                raise TypeError(f"{cls.__name__}.{name}: trial would not run an async test")

    def result_of(self, waiting: Deferred[T] | Coroutine[Any, Any, T]) -> T:
        """Return the result a Deferred or coroutine has now; fail if it has none yet."""
        return self.successResultOf(_as_deferred(waiting))

    def error_of(self, waiting: Deferred[Any] | Coroutine[Any, Any, Any], kind: type[E]) -> E:
        """Return the ``kind`` of error a Deferred or coroutine has failed with; else fail."""
        error = self.failureResultOf(_as_deferred(waiting), kind).value
        assert isinstance(error, kind)
        return error

    def assert_waiting(self, waiting: Deferred[Any]) -> None:
        """Fail if the Deferred has fired."""
        self.assertNoResult(waiting)


def _as_deferred(waiting: Deferred[T] | Coroutine[Any, Any, T]) -> Deferred[T]:
    return waiting if isinstance(waiting, Deferred) else Deferred.fromCoroutine(waiting)
