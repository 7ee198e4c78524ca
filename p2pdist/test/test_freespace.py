"""Tests of how much room is left."""

from __future__ import annotations

from twisted.internet.task import Clock

from p2pdist import limits
from p2pdist.storage.freespace import FreeSpace
from p2pdist.test.fakes import StepWorkers
from p2pdist.test.simdisk import SimDisk
from p2pdist.test.storehouse import DATA
from p2pdist.test.support import TestCase


class FreeSpaceTests(TestCase):
    """What the disk says, and how often it is asked."""

    def setUp(self):
        """A disk of known size, and workers that run when told to."""
        self.disk = SimDisk()
        self.disk.put_folder(DATA)
        self.disk.capacity = 1000
        self.workers = StepWorkers()
        self.clock = Clock()
        self.free = FreeSpace(self.disk, self.workers, self.clock, DATA)

    def test_asked_in_a_worker(self):
        """Nothing is known before a worker has asked; no handle stays open."""
        self.free.look()
        self.assertIsNone(self.free.bytes)
        self.workers.finish()
        self.assertEqual(1000, self.free.bytes)
        self.assertEqual(0, self.disk.open_handles)

    def test_one_question_at_a_time(self):
        """A disk that hangs is asked once; an answer is good for FREE_SPACE_EVERY_S."""
        self.free.look()
        self.clock.advance(limits.FREE_SPACE_EVERY_S)
        self.free.look()
        self.assertEqual(1, len(self.workers.waiting))
        self.workers.finish()
        self.free.look()
        self.assertEqual(1, len(self.workers.waiting))
        self.disk.capacity = 500
        self.clock.advance(limits.FREE_SPACE_EVERY_S)
        self.free.look()
        self.workers.finish()
        self.assertEqual(500, self.free.bytes)

    def test_no_folder(self):
        """Where the folder is gone nothing is known any more."""
        gone = FreeSpace(self.disk, self.workers, self.clock, "/none")
        gone.bytes = 3
        gone.look()
        self.workers.finish()
        self.assertIsNone(gone.bytes)

    def test_idle(self):
        """Whoever stops can wait for the question that is under way."""
        self.successResultOf(self.free.idle())
        self.free.look()
        idle = self.free.idle()
        self.assertNoResult(idle)
        self.workers.finish()
        self.successResultOf(idle)
