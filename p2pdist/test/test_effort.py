"""Tests of what writing pieces costs."""

from __future__ import annotations

from p2pdist.storage.effort import Effort, Spent
from p2pdist.test.support import TestCase


class EffortTests(TestCase):
    """Hashing or writing."""

    def test_the_slower_one(self):
        """The one that takes more time is named; without any piece it is the disk."""
        effort = Effort()
        self.assertFalse(effort.mostly_hashing)
        effort.add(Spent(hashing_s=0.2, writing_s=0.1))
        self.assertTrue(effort.mostly_hashing)

    def test_what_is_long_ago_counts_less(self):
        """A disk that becomes slow is noticed within some ten pieces, whatever was before."""
        effort = Effort()
        for _ in range(1000):
            effort.add(Spent(hashing_s=0.2, writing_s=0.1))
        for _ in range(10):
            effort.add(Spent(hashing_s=0.2, writing_s=0.5))
        self.assertFalse(effort.mostly_hashing)
