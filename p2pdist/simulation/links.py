"""Lines with a rate, a delay and a queue, and TCP streams that share them.

Job: what a strategy meets on real lines: many flows on one uplink, slow start of fresh ones, queues
and losses at the receivers' downlinks, control frames behind data. Does NOT know what the bytes
mean. Pure: a :class:`~p2pdist.simulation.timeline.Timeline` is all it stands on. Tests:
``test_links``.

A stream's bytes go the way they go in Linux. The program's transport holds ``bufferSize`` bytes
before it pauses its producer; the kernel takes more while fewer than ``notsent_bytes`` wait in it;
what is in flight is bounded by a congestion window (slow start that ends at a loss or when the
delay grows, then cubic, RFC 9438); at the host's uplink streams take turns; at the receiver's
downlink there is one queue that drops what finds it full. Everything moves in segments of
``Terrain.segment_bytes``, which may stand for several packets to save time. Acknowledgements take
time but no room.
"""

from __future__ import annotations

import math
import random
import struct
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from attrs import define, frozen
from twisted.internet.address import IPv4Address
from twisted.internet.interfaces import IAddress, IPushProducer

from p2pdist.simulation.timeline import KERNEL, Timeline

PACKET_BYTES: Final = 1448
FIRST_WINDOW_BYTES: Final = 10 * PACKET_BYTES
CUBIC: Final = 0.4
BETA: Final = 0.7
RTO_S: Final = 0.2
NOTSENT_LOWAT: Final = 25
DELAY_GROWTH_S: Final = 0.004
"""Slow start ends when a segment took so much longer than the quickest one (HyStart)."""


class Receiver(Protocol):
    """Where bytes end: a Twisted protocol has this shape."""

    def dataReceived(self, data: bytes) -> None:
        """Take bytes."""


@frozen(kw_only=True)
class Terrain:
    """What all lines have in common.

    Attributes:
        delay_s: from any host to any other, one way.
        queue_s: how long the queue before a downlink may get; without bound if ``None``.
        segment_bytes: what moves at once.
        loss: share of packets lost on the way, from 0 to 1.
    """

    delay_s: float = 0.0025
    queue_s: float | None = 0.06
    segment_bytes: int = 2 * PACKET_BYTES
    loss: float = 0.0

    def survives(self, size: int) -> float:
        """Return the chance that all packets of a segment arrive."""
        return (1 - self.loss) ** math.ceil(size / PACKET_BYTES)


@define(eq=False)
class _Segment:
    stream: Stream
    data: bytes
    number: int
    left_at: float = 0.0


class Host:
    """A machine with one line each way.

    Args:
        timeline: of everything.
        terrain: of everything.
        up: bytes per second of its uplink.
        down: of its downlink.
        rng: decides what is lost on the way to it, if anything is.

    Attributes:
        sent_bytes: what left, losses included.
        lost_bytes: what its downlink's queue dropped, or was lost on the way to it.
        alive: false once it was switched off.
    """

    def __init__(
        self,
        timeline: Timeline,
        terrain: Terrain,
        up: float,
        down: float,
        rng: random.Random | None = None,
    ) -> None:
        self.timeline = timeline
        self.terrain = terrain
        self.sent_bytes = 0
        self.lost_bytes = 0
        self.alive = True
        self._up = up
        self._down = down
        self._waiting: deque[_Segment] = deque()
        self._sending = False
        self._down_free = 0.0
        self._rng = rng

    def switch_off(self) -> None:
        """Send and receive nothing more."""
        self.alive = False

    def enqueue(self, segment: _Segment) -> None:
        """Send a segment when the uplink is free."""
        self._waiting.append(segment)
        if not self._sending:
            self._send()

    def _send(self) -> None:
        if not self._waiting or not self.alive:
            self._sending = False
            return
        self._sending = True
        segment = self._waiting.popleft()
        took = len(segment.data) / self._up
        self.timeline.at(self.timeline.now + took, KERNEL, self._sent, segment)

    def _sent(self, segment: _Segment) -> None:
        self.sent_bytes += len(segment.data)
        there = segment.stream.there
        when = self.timeline.now + self.terrain.delay_s
        self.timeline.at(when, KERNEL, there.arriving, segment)
        segment.stream.left()
        self._send()

    def arriving(self, segment: _Segment) -> None:
        """Queue a segment before the downlink, or drop it."""
        if not self.alive:
            return
        now, queue_s = self.timeline.now, self.terrain.queue_s
        start = max(now, self._down_free)
        took = len(segment.data) / self._down
        full = queue_s is not None and start - now + took > max(queue_s, 2 * took)
        if full or self._is_lost(segment):
            self.lost_bytes += len(segment.data)
            self.timeline.at(now + self.terrain.delay_s, KERNEL, segment.stream.lost, segment)
            return
        self._down_free = start + took
        self.timeline.at(self._down_free, KERNEL, segment.stream.arrived, segment)

    def _is_lost(self, segment: _Segment) -> bool:
        if self._rng is None:
            return False
        return self._rng.random() >= self.terrain.survives(len(segment.data))


class Stream:
    """One direction of a TCP connection, in the place of a Twisted transport.

    Args:
        here: the sending host.
        there: the receiving host.
        name: the sender's address, as the receiver's transport tells it.

    Attributes:
        receiver: where the bytes end.
        bufferSize: what the program's transport holds before it pauses the producer.
        notsent_bytes: see the module.
        window_bytes: what the receiver takes: its bound on what is in flight.
        closed: called once when the stream is closed.
    """

    def __init__(self, here: Host, there: Host, name: IPv4Address) -> None:
        self.here = here
        self.there = there
        self.receiver: Receiver | None = None
        self.bufferSize = 1 << 16
        self.notsent_bytes = 1 << 17
        self.closed: Callable[[], None] = lambda: None
        self._name = name
        self._timeline = here.timeline
        self._terrain = here.terrain
        self._program = bytearray()
        self._kernel = bytearray()
        self._producer: IPushProducer | None = None
        self._paused = False
        self.window_bytes = float("inf")
        self._ended = False
        self._flush_due = False
        # sender
        self._window = float(FIRST_WINDOW_BYTES)
        self._slow_start_to = float("inf")
        self._flight = 0
        self._queued = 0  # segments before the uplink
        self._number = 0
        self._again: deque[_Segment] = deque()
        self._recover_to = -1
        self._quickest = float("inf")
        self._smoothed = 0.0
        self._cubic_from = 0.0
        self._cubic_top = 0.0
        self._idle_since = 0.0
        # receiver
        self._expected = 0
        self._early: dict[int, _Segment] = {}

    # --- the program's transport ---

    def write(self, data: bytes) -> None:
        """See Twisted's ``ITransport``."""
        if self._ended:
            return
        self._program += data
        if len(self._program) > self.bufferSize and self._producer and not self._paused:
            self._paused = True
            self._producer.pauseProducing()
        if not self._flush_due:
            self._flush_due = True
            self._timeline.at(self._timeline.now, KERNEL, self._flush)

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """See Twisted's ``ITransport``."""
        self.write(b"".join(data))

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> None:
        """See Twisted's ``IConsumer``."""
        assert streaming
        self._producer = producer

    def unregisterProducer(self) -> None:
        """See Twisted's ``IConsumer``."""
        self._producer = None

    def pauseProducing(self) -> None:
        """Nothing: the receiving program always reads."""

    def resumeProducing(self) -> None:
        """Nothing: the receiving program always reads."""

    def loseConnection(self) -> None:
        """Close at once: what nobody waits for need not be simulated."""
        self.abortConnection()

    def abortConnection(self) -> None:
        """Close at once; the other side learns it after the delay."""
        if not self._ended:
            self._ended = True
            self._program.clear()
            self._kernel.clear()
            when = self._timeline.now + self._terrain.delay_s
            self._timeline.at(when, KERNEL, self.closed)

    def getPeer(self) -> IAddress:
        """See Twisted's ``ITransport``."""
        return self._name

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing: small frames are sent at once anyway."""

    def getHandle(self) -> Stream:
        """Return what takes socket options: the stream itself."""
        return self

    def setsockopt(self, _level: int, option: int, value: int) -> None:
        """Set TCP_NOTSENT_LOWAT; all others do nothing."""
        if option == NOTSENT_LOWAT:
            self.notsent_bytes = value

    def getsockopt(self, _level: int, _option: int, size: int) -> bytes:
        """Return a ``struct tcp_info`` of which only the round trips are filled in."""
        info = bytearray(size)
        for at, seconds in ((68, self._smoothed), (148, min(self._quickest, self._smoothed))):
            struct.pack_into("=I", info, at, int(seconds * 1e6))
        return bytes(info)

    def _flush(self) -> None:
        """Hand the program's bytes to the kernel, as far as it takes them."""
        self._flush_due = False
        room = self.notsent_bytes - len(self._kernel)
        if room > 0 and self._program:
            taken = self._program[:room]
            del self._program[: len(taken)]
            self._kernel += taken
        self._pump()
        if not self._program and self._paused and self._producer:
            self._paused = False
            self._producer.resumeProducing()

    # --- the sending kernel ---

    def _pump(self) -> None:
        if self._ended:
            return
        segment_bytes, now = self._terrain.segment_bytes, self._timeline.now
        window = min(self._window, self.window_bytes)
        if not self._flight and now - self._idle_since > RTO_S:
            window = self._window = min(self._window, float(FIRST_WINDOW_BYTES))
        while self._queued < 2 and (self._again or self._kernel):  # TSQ
            if self._again:
                segment = self._again.popleft()
            elif self._flight and self._flight + segment_bytes > window:
                return
            else:
                data = bytes(self._kernel[:segment_bytes])
                del self._kernel[: len(data)]
                segment = _Segment(self, data, self._number)
                self._number += 1
                self._flight += len(data)
            segment.left_at = now
            self._queued += 1
            self.here.enqueue(segment)
        if self._program and len(self._kernel) < self.notsent_bytes // 2 and not self._flush_due:
            self._flush_due = True
            self._timeline.at(now, KERNEL, self._flush)

    def left(self) -> None:
        """One of our segments is on the wire."""
        self._queued -= 1
        self._pump()

    def lost(self, segment: _Segment) -> None:
        """A segment was dropped, and the sender knows."""
        now = self._timeline.now
        if segment.number > self._recover_to:
            self._recover_to = self._number
            self._cubic_top = self._window
            self._window = max(2.0 * PACKET_BYTES, BETA * self._window)
            self._slow_start_to = self._window
            self._cubic_from = now
        few = self._flight < 4 * self._terrain.segment_bytes  # no duplicate acknowledgements
        self._timeline.at(now + (RTO_S if few else 0.0), KERNEL, self._retry, segment)

    def _retry(self, segment: _Segment) -> None:
        self._again.append(segment)
        self._pump()

    def _acknowledged(self, segment: _Segment) -> None:
        now, size = self._timeline.now, len(segment.data)
        took = now - segment.left_at
        self._quickest = min(self._quickest, took)
        self._smoothed += (took - self._smoothed) / 8 if self._smoothed else took
        full = self._flight + 2 * self._terrain.segment_bytes > self._window
        self._flight -= size
        self._idle_since = now
        if full:
            self._grow(size, took)
        self._pump()

    def _grow(self, size: int, took: float) -> None:
        if self._window < self._slow_start_to:
            self._window += size
            slower = took - self._quickest
            if slower > max(DELAY_GROWTH_S, self._quickest / 8):
                self._slow_start_to = self._window
                self._cubic_top, self._cubic_from = self._window, self._timeline.now
            return
        top = self._cubic_top / PACKET_BYTES
        since = self._timeline.now - self._cubic_from
        inflection = (top * (1 - BETA) / CUBIC) ** (1 / 3)
        goal = (CUBIC * (since - inflection) ** 3 + top) * PACKET_BYTES
        # Never slower than Reno would be.
        reno = size * PACKET_BYTES / self._window * 0.53
        self._window += min(float(size), max(reno, (goal - self._window) * size / self._window))

    # --- the receiving kernel ---

    def arrived(self, segment: _Segment) -> None:
        """A segment is there: hand on what is in order, and acknowledge."""
        when = self._timeline.now + self._terrain.delay_s
        self._timeline.at(when, KERNEL, self._acknowledged, segment)
        self._early[segment.number] = segment
        while (following := self._early.pop(self._expected, None)) is not None:
            self._expected += 1
            if self.receiver is not None and not self._ended and self.there.alive:
                self.receiver.dataReceived(following.data)
