"""The k-th disk call of a whole node fails, for some k (``everyk``); each k: tools/every_k.py."""

from __future__ import annotations

import errno

from p2pdist.simulation.timeline import Stuck
from p2pdist.test.everyk import Pair, fail_at
from p2pdist.test.support import TestCase

STEP = 11


class EveryKTests(TestCase):
    """A node goes on, or says what is wrong; its next process finishes."""

    def every(self, life: str, code: int, first: int, step: int = STEP) -> None:
        """Fail in every ``step``-th call of a life."""
        k = first
        while fail_at(life, k, code):
            k += step
        self.assertGreater(k, first)

    def test_download(self) -> None:
        """Errors of the device and a full disk while fetching."""
        self.every("download", errno.EIO, 0)
        self.every("download", errno.ENOSPC, 5)

    def test_seed(self) -> None:
        """Errors of the device and no more handles while serving."""
        self.every("seed", errno.EIO, 2)
        self.every("seed", errno.EMFILE, 7)

    def test_resume(self) -> None:
        """Errors of the device while going on after a kill."""
        self.every("resume", errno.EIO, 4)

    def test_shutdown(self) -> None:
        """Errors of the device while stopping."""
        self.every("shutdown", errno.EIO, 0, 2)

    def test_hang_is_seen(self) -> None:
        """A node that never gets on, and says nothing, is no success."""
        pair = Pair.make()
        pair.start(pair.leech)  # nobody has the content
        self.assertRaises(Stuck, pair.run_on)
        pair.stop(pair.leech)
