"""Whether a long way is full: round trips as the kernel measures them.

On a short way a few connections fill a line. On a long one each carries no more than its window,
and where packets are lost the window stays small: then more connections at the same time carry more
(Mathis et al., 1997: rate ~ MSS / (RTT sqrt(loss))). They would only queue if the line were full; a
queue shows in the round trips, which grow beyond the shortest one. So: as long as most connections
in use are long and see no queue, uploader and picker may use more places, one more at a look.
In simulation (``benchmarks/strategy.py``, 8 leechers, 80 ms) this takes 0.64 of the time with 5 %
loss, 0.83 without; ways below ``limits.LONG_WAY_S`` are left as they are.
Does NOT decide how many. Threat: a peer may delay its acknowledgements; it only keeps its own
connection from counting as clear. Tests: ``test_roundtrips``.
"""

from __future__ import annotations

import math
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Any, Final
from typing import Protocol as Structural

from attrs import frozen

from p2pdist import limits

_TCP_INFO: Final = 11
_SMOOTHED: Final = 68
_SHORTEST: Final = 148
_BYTES: Final = 152
"""Linux's ``struct tcp_info``: ``tcpi_rtt`` and ``tcpi_min_rtt``, microseconds, since 4.6."""


@frozen
class RoundTrip:
    """What a connection's packets take, in seconds.

    Attributes:
        smoothed: lately (RFC 6298).
        shortest: ever, or in the last minutes.
    """

    smoothed: float
    shortest: float

    @property
    def is_clear(self) -> bool:
        """Whether the way is long and nothing stands in a queue on it."""
        queued = self.smoothed - self.shortest
        return self.shortest >= limits.LONG_WAY_S and queued <= self.shortest * limits.QUEUE_SHARE


def round_trip(transport: object) -> RoundTrip | None:
    """Ask the kernel about a transport's socket; ``None`` where it has no answer."""
    get_handle: Callable[[], Any] | None = getattr(transport, "getHandle", None)
    get = getattr(get_handle and get_handle(), "getsockopt", None)
    if get is None:
        return None
    try:
        info = get(socket.IPPROTO_TCP, _TCP_INFO, _BYTES)
    except OSError:
        return None  # another system, or the socket is gone already
    if len(info) < _BYTES:
        return None
    (smoothed,), (shortest,) = (struct.unpack_from("=I", info, at) for at in (_SMOOTHED, _SHORTEST))
    return RoundTrip(smoothed / 1e6, shortest / 1e6)


class Peer(Structural):
    """A connection that can tell."""

    useful_at: float

    def round_trip(self) -> RoundTrip | None:
        """Return what its packets take."""


class Book(Structural):
    """Who may use more places on a clear line."""

    def adapt(self, now: float, *, clear: bool) -> None:
        """Take notice of the line, once every ``limits.UPLINK_SPAN_S``."""


class LineWatch:
    """Looks at the connections in use, and tells the books.

    Args:
        books: told at each look.
    """

    def __init__(self, *books: Book) -> None:
        self._books = books
        self._looked_at = -math.inf

    def look(self, peers: Iterable[Peer], now: float) -> None:
        """Look, if it is time to."""
        if now - self._looked_at < limits.UPLINK_SPAN_S:
            return
        self._looked_at = now
        used = [peer for peer in peers if now - peer.useful_at < limits.IN_USE_S]
        trips = [trip for peer in used if (trip := peer.round_trip())]
        clear = sum(trip.is_clear for trip in trips)
        for book in self._books:
            book.adapt(now, clear=2 * clear > len(trips))
