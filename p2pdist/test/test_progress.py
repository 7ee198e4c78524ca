"""Tests for :mod:`p2pdist.swarm.progress` and :mod:`p2pdist.swarm.rates`."""

from __future__ import annotations

from p2pdist import limits
from p2pdist.swarm import progress
from p2pdist.swarm.rates import Pipeline, RateMeter, eta_s
from p2pdist.test.support import TestCase
from p2pdist.test.test_picker import mask


class RateTests(TestCase):
    """Bytes per second."""

    def test_steady_rate(self) -> None:
        """A steady stream shows its rate; all of it is in the total."""
        meter = RateMeter()
        for tick in range(1, 201):
            meter.add(10, tick / 10)
        self.assertLess(abs(100.0 - meter.rate(20.0)), 5.0)
        self.assertEqual(2000, meter.total)

    def test_old_bytes_are_forgotten(self) -> None:
        """RATE_WINDOW_S after the last byte the rate is zero."""
        meter = RateMeter()
        meter.add(1000, 0.0)
        self.assertLess(0.0, meter.rate(limits.RATE_WINDOW_S))
        self.assertEqual(0.0, meter.rate(limits.RATE_WINDOW_S + 0.1))
        self.assertEqual(0.0, RateMeter().rate(5.0))

    def test_memory_is_bounded(self) -> None:
        """However many blocks are counted, a meter keeps a handful of steps."""
        meter = RateMeter()
        for block in range(10_000):
            meter.add(1, block / 1000)
        self.assertLess(len(meter._steps), 20)

    def test_burst_is_not_infinite(self) -> None:
        """The first bytes at once are a rate over half a second."""
        meter = RateMeter()
        meter.add(100, 3.0)
        self.assertEqual(100 / (limits.RATE_WINDOW_S / 10), meter.rate(3.0))

    def test_eta(self) -> None:
        """The time left is unknown while nothing moves, and zero at the end."""
        self.assertEqual(2.0, eta_s(200, 100.0))
        self.assertIsNone(eta_s(200, 0.0))
        self.assertEqual(0.0, eta_s(0, 0.0))


class PipelineTests(TestCase):
    """How many pieces fill the way there and back."""

    def test_filling(self) -> None:
        """Twice the rate times the shortest delay; nothing before a delay is known."""
        pipeline = Pipeline()
        for step in range(100):
            pipeline.passed(0.01 * step)
        self.assertEqual(0, pipeline.filling(1.0))
        for delay_s in (0.3, 0.1, 5.0):
            pipeline.took(delay_s)
        self.assertEqual(20, pipeline.filling(1.0))


class WaitingTests(TestCase):
    """Why nothing moves, in words."""

    def test_no_connection(self) -> None:
        """Nobody known, nobody connected, TCP blocked: three different waits."""
        self.assertEqual("peers", progress.waiting_for_peers(0, 0))
        self.assertEqual("a connection to 1 peer", progress.waiting_for_peers(1, 0))
        self.assertEqual(
            "a connection to 3 peers (2 of them: UDP answers but TCP does not)",
            progress.waiting_for_peers(3, 2),
        )

    def test_metadata(self) -> None:
        """Peers that have the metadata, or none that does."""
        self.assertEqual("metadata from 3 peers", progress.waiting_for_metadata(3, 4))
        self.assertEqual(
            "a peer that has the metadata (none of 1 peer has it)",
            progress.waiting_for_metadata(0, 1),
        )

    def test_pieces(self) -> None:
        """Pieces nobody has are named; else everybody is busy."""
        self.assertEqual("a turn from 2 peers", progress.waiting_for_pieces(0, 2))
        self.assertEqual(
            "a peer that has piece 2 (nobody connected has it)",
            progress.waiting_for_pieces(mask("  x"), 2),
        )
        self.assertEqual(
            "peers that have piece 1 and 2 others (nobody connected has them)",
            progress.waiting_for_pieces(mask(" x xx"), 2),
        )
