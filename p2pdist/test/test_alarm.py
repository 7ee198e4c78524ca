"""Tests of the one delayed call behind many timeouts: order, cancelling, bounds, errors."""

from __future__ import annotations

from attrs import define, field
from twisted.internet.task import Clock

from p2pdist import limits
from p2pdist.overlay.alarm import NEVER, Alarm
from p2pdist.test.support import TestCase


@define(eq=False)
class Waiter:
    """Somebody who waits, with a letter for a name."""

    name: str
    due: float = NEVER


@define
class Bell:
    """An alarm on a clock, and who was overdue when."""

    clock: Clock = field(factory=Clock)
    rung: list[tuple[float, str]] = field(factory=list)
    alarm: Alarm[Waiter] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.alarm = Alarm(self.clock, self.ring)

    def ring(self, waiter: Waiter) -> None:
        """Note who it is."""
        self.rung.append((self.clock.seconds(), waiter.name))

    def run(self) -> None:
        """Let time pass from call to call until none is left."""
        while calls := self.clock.getDelayedCalls():
            self.clock.advance(max(0.0, calls[0].getTime() - self.clock.seconds()))


class AlarmTests(TestCase):
    """Whose time has come is told; nobody else is."""

    def setUp(self):
        """Start with nobody waiting."""
        self.bell = Bell()
        self.alarm = self.bell.alarm

    def test_in_the_order_of_their_times(self):
        """Each is told at its own time, whatever the order they were set in; then it is quiet."""
        for name, due in [("b", 2.0), ("a", 1.0), ("d", 3.0), ("c", 2.0)]:
            self.alarm.set(Waiter(name), due)
        self.bell.run()
        self.assertEqual([(1.0, "a"), (2.0, "b"), (2.0, "c"), (3.0, "d")], self.bell.rung)
        self.assertEqual(0, len(self.alarm))

    def test_one_delayed_call(self):
        """However many wait, the reactor has one call to look after."""
        for number in range(20):
            self.alarm.set(Waiter("x"), 20.0 - number)
        self.assertEqual([1.0], [call.getTime() for call in self.bell.clock.getDelayedCalls()])
        self.alarm.stop()

    def test_cancelled(self):
        """Who waits for nothing any more is not told, and leaves no call behind once it was due."""
        waiter = Waiter("a")
        self.alarm.set(waiter, 1.0)
        waiter.due = NEVER
        self.bell.run()
        self.assertEqual([], self.bell.rung)

    def test_set_again(self):
        """Only the time set last counts, be it earlier or later."""
        early, late = Waiter("early"), Waiter("late")
        for waiter, due in [(early, 2.0), (late, 2.0), (early, 1.0), (late, 3.0)]:
            self.alarm.set(waiter, due)
        self.bell.run()
        self.assertEqual([(1.0, "early"), (3.0, "late")], self.bell.rung)

    def test_set_while_it_rings(self):
        """Who is told may wait again, also for less long than the others do."""

        def ring(waiter: Waiter) -> None:
            self.bell.ring(waiter)
            if waiter.name == "a":
                self.alarm.set(Waiter("b"), self.bell.clock.seconds() + 0.5)

        self.alarm.overdue = ring
        self.alarm.set(Waiter("a"), 1.0)
        self.alarm.set(Waiter("c"), 2.0)
        self.bell.run()
        self.assertEqual([(1.0, "a"), (1.5, "b"), (2.0, "c")], self.bell.rung)

    def test_one_that_fails(self):
        """A bug in what one is told does not leave the others waiting."""

        def ring(waiter: Waiter) -> None:
            if waiter.name == "bad":
                raise ZeroDivisionError
            self.bell.ring(waiter)

        self.alarm.overdue = ring
        self.alarm.set(Waiter("bad"), 1.0)
        self.alarm.set(Waiter("good"), 1.0)
        with self.assertRaises(ZeroDivisionError):
            self.bell.clock.advance(1.0)
        self.bell.run()
        self.assertEqual([(1.0, "good")], self.bell.rung)

    def test_bounded(self):
        """Timeouts cancelled long before they come are swept away; those that stand stay."""
        standing = Waiter("standing")
        self.alarm.set(standing, 1000.0)
        for number in range(3 * limits.ALARM_SPARE):
            waiter = Waiter("cancelled")
            self.alarm.set(waiter, 1.0 + number)
            waiter.due = NEVER
            self.assertLessEqual(len(self.alarm), limits.ALARM_SPARE)
        self.bell.run()
        self.assertEqual([(1000.0, "standing")], self.bell.rung)

    def test_as_many_as_wait(self):
        """More than that may wait, all of them are told, and there are never twice as many."""
        waiters = [Waiter(str(number)) for number in range(2 * limits.ALARM_SPARE)]
        for again in range(5):
            for waiter in waiters:
                self.alarm.set(waiter, 1.0 + again)
                self.assertLessEqual(len(self.alarm), 2 * len(waiters))
        self.bell.run()
        self.assertEqual([(5.0, waiter.name) for waiter in waiters], self.bell.rung)

    def test_stopped(self):
        """A stopped alarm tells nobody, and leaves nothing to be called later."""
        self.alarm.set(Waiter("a"), 1.0)
        self.alarm.stop()
        self.assertEqual([], self.bell.clock.getDelayedCalls())
        self.alarm.stop()
        self.assertEqual(0, len(self.alarm))
