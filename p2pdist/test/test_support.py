"""Tests of the ground the tests stand on."""

from __future__ import annotations

import unittest

from hypothesis import example, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.trial.reporter import TestResult

from p2pdist.test.support import Falsified, TestCase, given, profile_name, run_machine


async def _coroutine(result: Deferred[int]) -> int:
    return await result


class GivenTests(TestCase):
    """Hypothesis under trial."""

    def test_failure_names_the_example(self):
        """A falsified property fails with the smallest example in its text."""

        @given(st.integers())
        def is_small(number: int) -> None:
            assert number < 100, "too large"

        text = str(self.assertRaises(Falsified, is_small))
        self.assertIn("AssertionError: too large", text)
        self.assertIn("number=100", text)

    def test_error_names_the_example(self):
        """An exception that is no assertion is shown with its type and example."""

        @given(number=st.integers(0, 9))
        def divide(number: int) -> None:
            1 / (number - 7)

        text = str(self.assertRaises(Falsified, divide))
        self.assertIn("ZeroDivisionError", text)
        self.assertIn("number=7", text)

    def test_traceback_leads_to_the_test(self):
        """The traceback of the failure ends in the property, not in the wrapper."""

        @given(st.none())
        def lonely_property(nothing: None) -> None:
            raise KeyError(nothing)

        error = self.assertRaises(Falsified, lonely_property)
        frame = error.__traceback__
        names = []
        while frame is not None:
            names.append(frame.tb_frame.f_code.co_name)
            frame = frame.tb_next
        self.assertEqual("lonely_property", names[-1])

    def test_settings_above_and_below(self):
        """Settings count on either side of ``given``."""
        calls: list[str] = []

        @settings(max_examples=3)
        @given(st.integers())
        def above(_number: int) -> None:
            calls.append("above")

        @given(st.integers())
        @settings(max_examples=4)
        def below(_number: int) -> None:
            calls.append("below")

        above()
        below()
        self.assertEqual(["above"] * 3 + ["below"] * 4, calls)

    def test_example_is_run(self):
        """An explicit example is tried, and shown when it fails."""

        @example(123456789)
        @given(st.integers(0, 5))
        def is_small(number: int) -> None:
            assert number < 100

        self.assertIn("number=123456789", str(self.assertRaises(Falsified, is_small)))

    def test_skip_passes_through(self):
        """A test that skips itself is skipped, not falsified."""

        @settings(derandomize=True)
        @given(st.none())
        def skips(_number: int) -> None:
            raise unittest.SkipTest("not today")

        self.assertRaises(unittest.SkipTest, skips)

    def test_profile(self):
        """The variable wins over CI; without both the run is a developer's."""
        self.assertEqual("dev", profile_name({}))
        self.assertEqual("ci", profile_name({"CI": "true"}))
        self.assertEqual("dev", profile_name({"CI": "1", "P2PDIST_HYPOTHESIS_PROFILE": "dev"}))

    def test_profiles_know_no_deadline(self):
        """No profile fails a test for being slow; only ``ci`` repeats its examples."""
        for name, derandomized in (("dev", False), ("ci", True)):
            profile = settings.get_profile(name)
            self.assertIsNone(profile.deadline)
            self.assertEqual(derandomized, profile.derandomize)


class MachineTests(TestCase):
    """State machines under trial."""

    def test_failure_names_the_steps(self):
        """A broken machine fails with the steps that broke it."""

        class Counter(RuleBasedStateMachine):
            def __init__(self) -> None:
                super().__init__()
                self.count = 0

            @rule()
            def step(self) -> None:
                self.count += 1
                assert self.count < 3

        text = str(self.assertRaises(Falsified, run_machine, Counter))
        self.assertEqual(3, text.count("state.step()"))


class TestCaseTests(TestCase):
    """The base class."""

    def test_async_test_is_refused(self):
        """A class with an ``async def`` test, which would pass unrun, cannot be made."""

        async def test_nothing(_self: object) -> None:
            raise AssertionError

        self.assertRaises(TypeError, type, "Bad", (TestCase,), {"test_nothing": test_nothing})

    def test_result_of(self):
        """Deferreds and coroutines give their result."""
        self.assertEqual(5, self.result_of(succeed(5)))
        self.assertEqual(6, self.result_of(_coroutine(succeed(6))))

    def test_result_of_unfired(self):
        """A coroutine that still waits has no result: the test fails."""
        self.assertRaises(self.failureException, self.result_of, _coroutine(Deferred()))

    def test_error_of(self):
        """The error is returned when it is of the kind asked for, else the test fails."""
        error = KeyError("x")
        self.assertIs(error, self.error_of(fail(error), LookupError))
        self.assertIs(error, self.error_of(_coroutine(fail(error)), KeyError))
        self.assertRaises(self.failureException, self.error_of, fail(error), OSError)

    def test_assert_waiting(self):
        """A Deferred without result passes, a fired one fails the test."""
        self.assert_waiting(Deferred())
        self.assertRaises(self.failureException, self.assert_waiting, succeed(None))

    def test_logged_error_fails_the_test(self):
        """What is logged as an error fails the test that did not flush it."""

        class Logs(TestCase):
            def test_it(self) -> None:
                """Log an error."""
                Logger().failure("oops", Failure(ValueError("lost")))

        result = TestResult()
        Logs("test_it").run(result)
        self.assertEqual(1, len(result.errors))
