"""Tests for :mod:`p2pdist.swarm.uplink`."""

from __future__ import annotations

from p2pdist import limits
from p2pdist.swarm.uplink import Uplink
from p2pdist.test.support import TestCase

LEAST, MOST = limits.UPLOAD_SLOTS_RANGE
SPAN = 1.01 * limits.UPLINK_SPAN_S
FULL = 100_000


class UplinkTests(TestCase):
    """How many pieces go side by side."""

    def setUp(self) -> None:
        """Begin with one span at full rate."""
        self.uplink = Uplink()
        self.now = 0.0
        self.uplink.look(self.now, wanted=True)
        self.spend(FULL)

    def spend(self, size: int, *, wanted: bool = True, spans: int = 1) -> None:
        """Send so much in each span."""
        for _ in range(spans):
            self.uplink.add(size)
            self.now += SPAN
            self.uplink.look(self.now, wanted=wanted)

    def test_busy_line_needs_few(self) -> None:
        """At full rate the slots fall to the least, and no lower."""
        self.spend(FULL, spans=10)
        self.assertEqual(LEAST, self.uplink.slots)

    def test_idle_line_opens_more(self) -> None:
        """Far below the best rate with all slots taken they rise to the most, and no higher."""
        self.spend(FULL // 2, spans=10)
        self.assertEqual(MOST, self.uplink.slots)

    def test_clear_long_way_opens_more(self) -> None:
        """As long as most ways are long and clear they rise, at any rate, to UPLOAD_SLOTS_MOST."""
        self.uplink.adapt(clear=True)
        self.spend(FULL, wanted=False, spans=5)
        self.assertEqual(LEAST, self.uplink.slots)
        self.spend(FULL, spans=30)
        self.assertEqual(limits.UPLOAD_SLOTS_MOST, self.uplink.slots)
        self.uplink.adapt(clear=False)
        self.spend(FULL, spans=limits.UPLOAD_SLOTS_MOST - MOST)
        self.assertEqual(MOST, self.uplink.slots)

    def test_unwanted_slots_stay_closed(self) -> None:
        """A line that idles for want of takers opens none."""
        before = self.uplink.slots
        self.spend(FULL // 2, wanted=False, spans=10)
        self.assertEqual(before, self.uplink.slots)

    def test_looks_once_a_span(self) -> None:
        """Within UPLINK_SPAN_S nothing changes, however often it is looked at."""
        before = self.uplink.slots
        for _ in range(20):
            self.uplink.look(self.now + limits.UPLINK_SPAN_S / 2, wanted=True)
        self.assertEqual(before, self.uplink.slots)

    def test_best_rate_fades(self) -> None:
        """A line that became slower for good counts as full again in the end."""
        self.spend(FULL // 2, spans=10)
        self.spend(FULL // 2, spans=1000)
        self.assertEqual(LEAST, self.uplink.slots)
