"""Readers of streams: bounded in number and in what waits for them."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock

from p2pdist import limits
from p2pdist.test.support import TestCase
from p2pdist.web.stream import Hub, Reader


class FakeFeed:
    """A feed that counts, and may take its time."""

    def __init__(self, clock: Clock, work_s: float = 0.0) -> None:
        self.steps = 0
        self._clock = clock
        self._work_s = work_s

    def step(self, now: float) -> bytes:
        """Return the number of the step."""
        del now
        self.steps += 1
        self._clock.rightNow += self._work_s
        return b"%d" % self.steps

    def whole(self, now: float) -> bytes:
        """Return all of it."""
        del now
        return b"all:%d" % self.steps


class ReaderTests(TestCase):
    """One reader."""

    def setUp(self):
        """Make one that writes into a list."""
        self.sent: list[bytes] = []
        self.drops: list[bool] = []
        self.reader = Reader(self.sent.append, lambda: self.drops.append(True))

    def test_pause(self):
        """What is sent while the other side does not read comes later, in order."""
        self.reader.send(b"a")
        self.reader.pauseProducing()
        self.reader.send(b"b")
        self.reader.send(b"c")
        self.assertEqual([b"a"], self.sent)
        self.reader.resumeProducing()
        self.assertEqual([b"a", b"b", b"c"], self.sent)

    def test_pause_while_catching_up(self):
        """One that pauses again in the middle gets the rest later, each part once."""
        sent = self.sent

        def write(data: bytes) -> None:
            sent.append(data)
            if data == b"b":
                reader.pauseProducing()

        reader = Reader(write, lambda: None)
        reader.pauseProducing()
        for data in (b"a", b"b", b"c"):
            reader.send(data)
        reader.resumeProducing()
        self.assertEqual([b"a", b"b"], sent)
        reader.resumeProducing()
        self.assertEqual([b"a", b"b", b"c"], sent)

    def test_slow_reader_is_dropped(self):
        """More than WEB_BACKLOG_BYTES never wait: the connection ends, and nothing is kept."""
        self.reader.pauseProducing()
        half = b"x" * (limits.WEB_BACKLOG_BYTES // 2)
        self.reader.send(half)
        self.reader.send(half)
        self.assertEqual([], self.drops)
        self.reader.send(b"x")
        self.assertEqual([True], self.drops)
        self.assertTrue(self.reader.gone)
        self.reader.send(b"y")
        self.reader.resumeProducing()
        self.assertEqual([], self.sent)


class HubTests(TestCase):
    """All readers."""

    def setUp(self):
        """Make a hub of counting feeds."""
        self.clock = Clock()
        self.made: list[tuple[str | None, FakeFeed]] = []
        self.work_s = 0.0
        self.hub = Hub(self.clock, self.make)

    def make(self, content: str | None) -> Any:
        """Make a feed."""
        feed = FakeFeed(self.clock, self.work_s)
        self.made.append((content, feed))
        return feed

    def join(self, content: str | None = None) -> tuple[Reader, list[bytes]]:
        """Open a page."""
        sent: list[bytes] = []
        reader = Reader(sent.append, lambda: None)
        self.hub.join(reader, content)
        return reader, sent

    def test_all_then_changes(self):
        """A page gets everything once, then what changed, every WEB_EVERY_S."""
        _, first = self.join()
        self.clock.advance(limits.WEB_EVERY_S)
        _, second = self.join()
        self.clock.advance(limits.WEB_EVERY_S)
        self.assertEqual([b"all:1", b"2", b"3"], first)
        self.assertEqual([b"all:2", b"3"], second)

    def test_pages_of_a_content_share_their_feed(self):
        """Each content that is looked at has one feed; with its last page it goes."""
        one, _ = self.join("a")
        two, _ = self.join("a")
        three, _ = self.join("b")
        self.assertEqual(["a", "b"], [content for content, _ in self.made])
        self.hub.left(three)
        self.hub.left(one)
        self.clock.advance(limits.WEB_EVERY_S)
        self.assertEqual([2, 1], [feed.steps for _, feed in self.made])
        self.hub.left(two)
        self.assertEqual([], self.clock.getDelayedCalls())
        self.join("a")
        self.assertEqual(3, len(self.made))

    def test_full(self):
        """WEB_READERS pages at a time."""
        readers = [self.join()[0] for _ in range(limits.WEB_READERS)]
        self.assertTrue(self.hub.full)
        self.hub.left(readers[0])
        self.assertFalse(self.hub.full)

    def test_work_is_bounded(self):
        """Updates that are much work come more rarely: WEB_SHARE of the time at most."""
        self.work_s = 0.2
        self.join()
        feed = self.made[0][1]
        self.clock.advance(limits.WEB_EVERY_S)
        self.assertEqual(2, feed.steps)
        self.clock.advance(0.2 / limits.WEB_SHARE - 0.01)
        self.assertEqual(2, feed.steps)
        self.clock.advance(0.02)
        self.assertEqual(3, feed.steps)

    def test_hurry(self):
        """A button's effect is shown at once."""
        _, sent = self.join()
        self.hub.hurry()
        self.clock.advance(0)
        self.assertEqual([b"all:1", b"2"], sent)

    def test_close(self):
        """At the end every connection is cut, and no timer is left."""
        drops: list[bool] = []
        self.hub.join(Reader(lambda _: None, lambda: drops.append(True)), None)
        self.hub.close()
        self.assertEqual(([True], 0, []), (drops, self.hub.readers, self.clock.getDelayedCalls()))
        self.hub.hurry()
