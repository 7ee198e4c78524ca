"""Open pages: each reads a stream of events, at its own pace, up to a bound.

Job: server-sent events (``text/event-stream``) to any number of readers up to
``limits.WEB_READERS``, from one feed for each content that is looked at. Every reader of a content
gets the same bytes, so a second page costs next to nothing; while nobody reads nothing is made; and
the more work an update is the longer the next one waits (``limits.WEB_SHARE``).
It does NOT know what is in an event (``feed``). Threat: a reader that does not read: what waits for
it is at most ``limits.WEB_BACKLOG_BYTES``, then it is dropped. Tests: ``test_web_stream``.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IPushProducer, IReactorTime
from zope.interface import implementer

from p2pdist import limits
from p2pdist.web.feed import Feed


@implementer(IPushProducer)
@define(eq=False)
class Reader:
    """One open page.

    Args:
        write: sends bytes; what the other side does not take yet is told by ``pauseProducing``.
        drop: ends the connection at once.
    """

    _write: Callable[[bytes], object]
    _drop: Callable[[], object]
    _paused: bool = False
    _waiting: list[bytes] = field(factory=list)
    _waiting_bytes: int = 0
    gone: bool = False

    def send(self, data: bytes) -> None:
        """Send, now or when the other side reads again; drop a reader that lags too far."""
        if self.gone or not data:
            return
        if not self._paused:
            self._write(data)
            return
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > limits.WEB_BACKLOG_BYTES:
            self.cut()

    def pauseProducing(self) -> None:
        """The other side does not read as fast as we send."""
        self._paused = True

    def resumeProducing(self) -> None:
        """It does again."""
        self._paused = False
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        for number, data in enumerate(waiting):
            if self._paused:  # it was enough again
                self._waiting = waiting[number:]
                self._waiting_bytes = sum(map(len, self._waiting))
                return
            self._write(data)

    def cut(self) -> None:
        """End it."""
        self.stopProducing()
        self._drop()

    def stopProducing(self) -> None:
        """The other side is gone."""
        self.gone = True
        self._waiting, self._waiting_bytes = [], 0


@define(eq=False)
class Hub:
    """All open pages of a service.

    Args:
        clock: time.
        make_feed: returns the feed of the content that a page looks at.
    """

    clock: IReactorTime
    make_feed: Callable[[str | None], Feed]
    _feeds: dict[str | None, tuple[Feed, list[Reader]]] = field(factory=dict)
    _timer: IDelayedCall | None = None

    @property
    def readers(self) -> int:
        """How many pages are open."""
        return sum(len(readers) for _, readers in self._feeds.values())

    @property
    def full(self) -> bool:
        """Whether there can be no more."""
        return self.readers >= limits.WEB_READERS

    def join(self, reader: Reader, content: str | None) -> None:
        """Send a page everything, and from then on what changes."""
        if content not in self._feeds:
            feed = self.make_feed(content)
            feed.step(self.clock.seconds())
            self._feeds[content] = (feed, [])
        feed, readers = self._feeds[content]
        readers.append(reader)
        reader.send(feed.whole(self.clock.seconds()))
        if self._timer is None:
            self._timer = self.clock.callLater(limits.WEB_EVERY_S, self._tick)

    def left(self, reader: Reader) -> None:
        """Forget a page."""
        reader.stopProducing()
        for content, (_, readers) in list(self._feeds.items()):
            if reader in readers:
                readers.remove(reader)
            if not readers:
                del self._feeds[content]
        if not self._feeds:
            self.stop()

    def hurry(self) -> None:
        """Update now: somebody pressed a button."""
        if self._timer is not None:
            self._timer.reset(0)

    def stop(self) -> None:
        """Send nothing more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """Stop, and end every connection."""
        self.stop()
        feeds, self._feeds = self._feeds, {}
        for _, readers in feeds.values():
            for reader in readers:
                reader.cut()

    def _tick(self) -> None:
        began = self.clock.seconds()
        for feed, readers in list(self._feeds.values()):
            data = feed.step(began)
            for reader in list(readers):
                reader.send(data)
        took = self.clock.seconds() - began
        wait_s = max(limits.WEB_EVERY_S, took / limits.WEB_SHARE)
        self._timer = self.clock.callLater(wait_s, self._tick) if self._feeds else None
