"""Tests of rate limits that outlive the process."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.control import Control
from p2pdist.descriptor import DescriptorParser
from p2pdist.keptlimits import PROCESS, KeptLimits, parse
from p2pdist.limits import MIB
from p2pdist.storage.statedir import StateDirectory
from p2pdist.swarm.throttle import RateLimits
from p2pdist.test.fakes import ImmediateWorkers
from p2pdist.test.pairworld import PairCase
from p2pdist.test.servicesworld import pointing
from p2pdist.test.simdisk import SimDisk
from p2pdist.test.support import TestCase, given

NONE = RateLimits()
SLOW = RateLimits(upload=MIB)
FAST = RateLimits(upload=9 * MIB, download=5 * MIB)


def content(number: int) -> str:
    """Return the name of a content."""
    return f"b3:{number:064x}"


class KeepingTests(TestCase):
    """What holds in the next run."""

    def setUp(self):
        """Begin with nothing."""
        self.disk = SimDisk()
        self.kept = self.next_process()

    def next_process(self) -> KeptLimits:
        """Return the limits of a process that begins."""
        self.disk.kill()
        self.state = StateDirectory.open(self.disk, "/state")
        return KeptLimits(ImmediateWorkers(), self.state)

    def set(self, name: str, options: RateLimits, rates: RateLimits) -> None:
        """Let options say something, then an operator something else."""
        self.kept.holding(name, options)
        self.result_of(self.kept.set(name, rates))
        self.kept = self.next_process()

    def test_outlives_the_process(self):
        """What was set holds again, for the process and for one content."""
        self.set(PROCESS, NONE, FAST)
        self.set(content(1), NONE, SLOW)
        self.assertEqual(FAST, self.kept.holding(PROCESS, NONE))
        self.assertEqual(SLOW, self.kept.holding(content(1), NONE))
        self.assertEqual(NONE, self.kept.holding(content(2), NONE))

    def test_unlimited_is_a_word_too(self):
        """An option's limit that was lifted stays lifted."""
        self.set(PROCESS, SLOW, NONE)
        self.assertEqual(NONE, self.kept.holding(PROCESS, SLOW))

    def test_latest_word_counts(self):
        """Once the options say something else, that holds; each direction by itself."""
        self.set(PROCESS, NONE, FAST)
        found = self.kept.holding(PROCESS, SLOW)
        self.assertEqual(RateLimits(upload=MIB, download=5 * MIB), found)

    def test_none_removes(self):
        """What the options say as well is not kept, and nothing of it is in the file."""
        self.set(PROCESS, NONE, FAST)
        self.set(PROCESS, NONE, NONE)
        self.assertEqual({}, json.loads(self.state.load_limits()))

    def test_bounded(self):
        """At most KEPT_LIMITS are kept, the latest; their file has KEPT_LIMITS_BYTES at most."""
        most = 2**62
        rates = RateLimits(upload=most, download=most)
        for number in range(limits.KEPT_LIMITS):
            self.kept.holding(content(number), RateLimits(upload=most - 1, download=most - 1))
            self.kept._words[content(number)] = {
                "upload": (most, most - 1),
                "download": (most, most - 1),
            }
        self.result_of(self.kept.set(content(limits.KEPT_LIMITS), rates))
        data = self.state.load_limits()
        self.assertLess(len(data), limits.KEPT_LIMITS_BYTES)
        found = parse(data)
        self.assertEqual(limits.KEPT_LIMITS, len(found))
        self.assertNotIn(content(0), found)

    def test_damaged(self):
        """What cannot be used in a file is passed over; the rest holds."""
        good = {"upload": [MIB, None]}
        pairs: tuple[Any, ...] = (5, [1], [True, None], [-1, None], [1, None], ["1", None])
        for bad in ([], 7, *({"upload": pair} for pair in (*pairs, [2**63, None]))):
            data = json.dumps({content(1): bad, content(2): good, "../x": good}).encode()
            self.assertEqual({content(2): {"upload": (MIB, None)}}, parse(data), bad)
        for junk in (b"", b"[" * 100_000, b"\xff", b"[]", b"null", b'"x"'):
            self.assertEqual({}, parse(junk))

    @given(st.binary(max_size=200))
    def test_any_bytes(self, data: bytes):
        """No file is an error."""
        parse(data)


class RestartTests(PairCase):
    """The service that is told, and starts again."""

    def told(self, **params: Any) -> None:
        """Tell it a limit."""
        self.world.wait_for(self.control.call("limit", params))

    def again(self, **settings: Any) -> None:
        """Start the service again."""
        self.leech.stop()
        self.service = self.leech.run(pointing(self.made, self.seed), **settings)
        self.control = Control(self.service, DescriptorParser())

    def test_restart(self):
        """What ``limit`` or the page said holds after a restart, until it is lifted."""
        self.told(upload="2MB")
        self.told(download="3MB", content=self.leech.session.name)
        self.again()
        self.assertEqual(2 * MIB, self.service.contents.limits.upload)
        self.assertEqual(3 * MIB, self.leech.session.limits.download)
        self.told(upload="none")
        self.again()
        self.assertIsNone(self.service.contents.limits.upload)
        self.again(rates=RateLimits(upload=MIB))
        self.assertEqual(MIB, self.service.contents.limits.upload)

    def test_pause(self):
        """A pause changes nothing of it, and what is set afterwards is kept as well."""
        key, name = self.made.hash_key, self.leech.session.name
        self.told(download="3MB", content=name)
        self.world.wait_for(self.control.call("pause", {}))
        self.world.wait_for(self.control.call("resume", {}))
        self.assertEqual(3 * MIB, self.service.contents.sessions[key].limits.download)
        self.told(download="none", content=name)
        self.again()
        self.assertIsNone(self.leech.session.limits.download)
