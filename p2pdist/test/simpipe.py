"""One direction of a simulated TCP connection: two kernels and the wire between them.

Job: carry bytes in order, with back-pressure, bandwidth and retransmission; notice that nothing
gets through. Does NOT know connecting and closing (``simtcp``). Tests: ``test_simpipe``.

Queue of the sending kernel -> wire -> queue of the receiving one: at most :data:`WINDOW_BYTES` are
in it, and room comes back when the receiver's process has read. A pipe outlives the close of its
sender, as a kernel goes on sending. Losses only cost time. Segments are cut at any byte.
"""

from __future__ import annotations

import errno
from collections import deque
from typing import Final, Protocol

from p2pdist.simulation.timeline import KERNEL
from p2pdist.test.simwires import Machine, SocketAddress

WINDOW_BYTES: Final = 1 << 20
SEGMENT_BYTES: Final = 1 << 16
TCP_TIMEOUT_S: Final = 60.0
"""A connection whose data gets no acknowledgement for so long is lost (Linux: 15 minutes)."""
RTO_S: Final = 0.2
RTO_MAX_S: Final = 5.0


class End(Protocol):
    """A socket at one end of a pipe.

    Attributes:
        machine: where it is.
        vanished: its machine crashed, and it with it.
    """

    machine: Machine
    vanished: bool

    @property
    def address(self) -> SocketAddress:
        """Its ``(ip, port)``."""

    def wake(self) -> None:
        """Learn that there is room."""

    def arrive(self, kind: str, data: bytes) -> None:
        """Take a segment: ``tcp`` with data, ``fin`` or ``rst``."""

    def fail(self, error: int) -> None:
        """Learn that the connection is lost."""


class Pipe:
    """One direction of a connection.

    Args:
        source: whose writes fill it.
        target: whose reads empty it.
    """

    __slots__ = (
        "_arrival",
        "_blocked",
        "_credits",
        "_delivery",
        "_finishing",
        "_held",
        "_orphaned",
        "_queue",
        "_rto",
        "_stalled_at",
        "_turn",
        "_wires",
        "ended",
        "source",
        "target",
    )

    def __init__(self, source: End, target: End) -> None:
        self.source = source
        self.target = target
        self.ended = False  # nothing more is sent: FIN or RST is out, or the sender is gone
        self._wires = source.machine.wires
        self._queue = bytearray()
        self._held = 0  # bytes queued, on the wire, unread, or whose room is on its way back
        self._credits: deque[tuple[float, int]] = deque()
        self._blocked = False  # the sender waits for room
        self._finishing = False
        self._orphaned = False  # bytes are out that nobody will acknowledge
        self._arrival = 0.0  # of the last segment: none overtakes it, ...
        self._delivery = 0.0  # ... nor behind a downlink whose rate changed
        self._turn = False
        self._stalled_at: float | None = None
        self._rto = RTO_S

    # --- the sender's side ---

    def room(self) -> int:
        """Return how many bytes can be pushed now; 0 also asks for a wake-up."""
        now = self._wires.now
        while self._credits and self._credits[0][0] <= now:
            self._held -= self._credits.popleft()[1]
        room = WINDOW_BYTES - self._held
        if room > 0:
            self._blocked = False
        elif not self._blocked:
            self._blocked = True
            if self._credits:
                self._wires.at(self._credits[0][0], KERNEL, self._unblock)
        return room

    def push(self, data: bytes | memoryview) -> None:
        """Queue bytes, at most :meth:`room`."""
        self._queue += data
        self._held += len(data)
        self._send_at(self._wires.now)

    def finish(self) -> None:
        """Send FIN after what is queued."""
        if not self.ended and not self._finishing:
            self._finishing = True
            self._send_at(self._wires.now)

    def reset(self) -> None:
        """Send RST now; what is queued is lost."""
        self.stop()
        delay = self._wires.transit(self.source.machine, self.target.machine)
        if delay is not None:
            self._launch("rst", b"", self._wires.now + delay)

    def stop(self) -> None:
        """Send nothing more."""
        self.ended = True
        self._queue.clear()

    def orphan(self) -> None:
        """Learn, in time, that the receiving machine crashed with our bytes unread."""
        if self._held - sum(size for _, size in self._credits) > 0 and not self.ended:
            self._orphaned = True
            self._send_at(self._wires.now + self._rto)

    def _unblock(self) -> None:
        if self._blocked and self.room() > 0:
            self.source.wake()

    def _send_at(self, when: float) -> None:
        if not self._turn:
            self._turn = True
            self._wires.at(when, KERNEL, self._send)

    def _send(self) -> None:
        self._turn = False
        while not self.ended and (self._queue or self._finishing or self._orphaned):
            if self._stalls():
                return
            if not self._queue:
                self.ended = self._finishing
                self._launch("fin", b"", self._wires.now + self._transit())
                return
            departure = self._send_segment()
            if departure > self._wires.now:
                self._send_at(departure)
                return

    def _send_segment(self) -> float:
        here, there = self.source.machine, self.target.machine
        queue = self._queue
        size = min(len(queue), SEGMENT_BYTES)
        split = self._wires.link_of(here, there).split
        if split and size > 1 and here.weather.random() < split:
            size = here.weather.randrange(1, size)
        with memoryview(queue) as view:
            data = bytes(view[:size])
        del queue[:size]
        departure = self._wires.now
        if here.uplink is not None and here is not there:
            departure = here.uplink.take(departure, size)
        self._launch("tcp", data, departure + self._transit())
        return departure

    def _transit(self) -> float:
        """Draw how long a segment takes, losses and what it takes to notice them included."""
        delay, rto = 0.0, RTO_S
        while True:
            transit = self._wires.transit(self.source.machine, self.target.machine)
            if transit is not None:
                return delay + transit
            delay += rto
            rto = min(2 * rto, RTO_MAX_S)
            if delay > TCP_TIMEOUT_S:  # hopeless; _stalls() will notice
                return delay

    def _stalls(self) -> bool:
        """Tell whether nothing gets through; then try again later, or give the connection up.

        Data needs acknowledgements: it waits when either direction is cut.
        """
        wires, here, there = self._wires, self.source.machine, self.target.machine
        cut = wires.is_cut(here, there) or wires.is_cut(there, here)
        if not cut and not self.target.vanished:
            self._stalled_at = None
            self._rto = RTO_S
            return False
        if not cut and there.boot.alive:  # restarted, and knows nothing of us
            self.stop()
            latency = wires.link_of(here, there).delay[0]
            wires.at(wires.now + 2 * latency, KERNEL, self.source.fail, errno.ECONNRESET)
            return True
        if self._stalled_at is None:
            self._stalled_at = wires.now
        elif wires.now - self._stalled_at >= TCP_TIMEOUT_S:
            self.stop()
            self.source.fail(errno.ETIMEDOUT)
            return True
        self._send_at(wires.now + self._rto)
        self._rto = min(2 * self._rto, RTO_MAX_S)
        return True

    # --- the wire and the receiver's side ---

    def _launch(self, kind: str, data: bytes, arrival: float) -> None:
        wires = self._wires
        wires.record(self.source.address, self.target.address, kind, len(data))
        self._arrival = max(arrival, self._arrival)
        wires.at(self._arrival, KERNEL, self._arrive, kind, data)

    def _arrive(self, kind: str, data: bytes) -> None:
        lane = self.target.machine.downlink
        wires = self._wires
        here = self.source.machine is self.target.machine
        when = wires.now if lane is None or here else lane.take(wires.now, len(data))
        self._delivery = max(when, self._delivery)
        if self._delivery > wires.now:
            # FIN and RST queue too: they must not overtake data.
            wires.at(self._delivery, KERNEL, self.target.arrive, kind, data)
        else:
            self.target.arrive(kind, data)

    def credit(self, size: int) -> None:
        """Send back the room of ``size`` bytes that were read."""
        wires = self._wires
        here, there = self.source.machine, self.target.machine
        latency = 0.0 if here is there else wires.link_of(there, here).delay[0]
        when = wires.now + latency
        if self._blocked and not self._credits:
            wires.at(when, KERNEL, self._unblock)
        self._credits.append((when, size))
