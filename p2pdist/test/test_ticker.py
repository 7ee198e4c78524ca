"""Tests of :mod:`p2pdist.swarm.ticker`."""

from __future__ import annotations

from twisted.internet.task import Clock

from p2pdist import limits
from p2pdist.swarm.ticker import Ticker
from p2pdist.test.support import TestCase


class TickerTests(TestCase):
    """The timer of a transfer."""

    def setUp(self) -> None:
        """Start one that may rest."""
        self.clock = Clock()
        self.ticks: list[float] = []
        self.quiet = True
        self.ticker = Ticker(self.clock, self.ticks.append, lambda: self.quiet)
        self.ticker.start()

    def run_for(self, seconds: float) -> int:
        """Let time pass; return how many ticks there were."""
        self.ticks.clear()
        self.clock.pump([0.5] * int(2 * seconds))
        return len(self.ticks)

    def test_rests_when_nothing_goes_on(self) -> None:
        """Every TICK_S for REST_AFTER_S, then every REST_TICK_S."""
        self.assertEqual(limits.REST_AFTER_S, self.run_for(limits.REST_AFTER_S) * limits.TICK_S)
        self.assertLessEqual(self.run_for(20 * limits.REST_TICK_S), 20)

    def test_does_not_rest_while_something_goes_on(self) -> None:
        """However long ago it began."""
        self.quiet = False
        self.assertEqual(100, self.run_for(100 * limits.TICK_S))

    def test_stirred_it_ticks_at_once_again(self) -> None:
        """The next deadline after an event is not missed by a rest."""
        self.run_for(5 * limits.REST_AFTER_S)
        self.ticker.stir()
        self.assertEqual(5, self.run_for(5 * limits.TICK_S))

    def test_stopped(self) -> None:
        """No timer is left, and none comes by an event."""
        self.ticker.stop()
        self.ticker.stop()
        self.ticker.stir()
        self.assertEqual([], self.clock.getDelayedCalls())
