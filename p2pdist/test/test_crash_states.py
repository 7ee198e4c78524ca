"""A sample of the disks that crashes leave (``crashstates``); all: tools/crash_states.py."""

from __future__ import annotations

import gc
import random

from p2pdist.storage.piecefiles import PieceFiles
from p2pdist.test.crashstates import SCENARIOS, BadState, Examination, sets_of
from p2pdist.test.simdisk import PAGE_BYTES, Change, PowerLost
from p2pdist.test.support import TestCase

EVERY = 61
"""One set of survivors in so many is tried here."""


class CrashStateTests(TestCase):
    """The next start gets every disk right."""

    def tearDown(self) -> None:
        """Syncs that met the end of the world say so when they are collected."""
        gc.collect()
        self.flushLoggedErrors(PowerLost)

    def test_a_few_of_each(self) -> None:
        """Downloads, resumes, replacements and repairs survive a sample of crashes."""
        total = 0
        for number, scenario in enumerate(SCENARIOS.values()):
            examination = Examination(scenario, random.Random(number), trace=number % 3)
            for _ in examination.run(every=EVERY):
                pass
            total += examination.distinct
        self.assertGreater(total, 100)

    def test_wrong_order_is_seen(self) -> None:
        """A store that forgets to sync the data before its bits is found out."""
        self.patch(PieceFiles, "sync", lambda *_: None)
        examination = Examination(SCENARIOS["download"], random.Random(1))
        self.assertRaises(BadState, list, examination.run(every=EVERY))


class SetTests(TestCase):
    """Which sets of changes are tried."""

    def test_few_changes_in_all_sets(self) -> None:
        """Of three, each of the eight sets."""
        tried = set(sets_of([Change(1), Change(2), Change(3)], random.Random(1)))
        for number in range(8):
            self.assertIn(tuple(float(number >> bit & 1) for bit in range(3)), tried)

    def test_whole_writes_in_all_sets(self) -> None:
        """Pages of one write belong together; of many pages whole writes are tried in all sets."""
        pages = [Change(1, page * PAGE_BYTES, PAGE_BYTES) for page in range(16)]
        other = [Change(2, page * PAGE_BYTES, PAGE_BYTES) for page in range(4)]
        tried = set(sets_of(pages + other, random.Random(1)))
        self.assertIn((1.0,) * 16 + (0.0,) * 4, tried)
        self.assertIn((0.0,) * 16 + (1.0,) * 4, tried)
        self.assertIn((1.0,) * 7 + (0.0,) * 13, tried)
        self.assertTrue(any(0.0 < share < 1.0 for kept in tried for share in kept), "torn pages")
