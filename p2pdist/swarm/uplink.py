"""How many pieces to send side by side: as few as keep the uplink busy. Pure; time is a parameter.

With few slots a piece leaves sooner, and can be passed on sooner. With too few the line idles
whenever the receivers' own lines are what holds them up. So the rate is held against the best one
lately seen: near it, a slot less will do; clearly below it with all slots taken, one more may help.
A long way without a queue takes more whatever the rate: each connection has only its window.
Does NOT know peers or pieces. Threat: peers that read slowly to draw slots onto themselves; there
are never more than the upper bound, and slow pieces lose theirs (``uploader``). Tests:
``test_uplink``.
"""

from __future__ import annotations

from attrs import define, field

from p2pdist import limits

_FULL = 0.95
_ROOM = 0.85
_FADES = 0.02
"""The best rate fades so fast, per second: lines get slower too."""


@define
class Uplink:
    """Counts what goes out and sets the number of slots.

    Attributes:
        slots: pieces to have on the wire, within ``limits.UPLOAD_SLOTS_RANGE``, on long ways up to
            ``limits.UPLOAD_SLOTS_MOST``.
    """

    slots: int = limits.UPLOAD_SLOTS
    _best: float = field(default=0.0, init=False)
    _since: float | None = field(default=None, init=False)
    _bytes: int = field(default=0, init=False)
    _clear: bool = field(default=False, init=False)

    def add(self, size: int) -> None:
        """Count bytes handed to a socket."""
        self._bytes += size

    def adapt(self, *, clear: bool) -> None:
        """Note whether the line would carry more on more connections (``roundtrips``)."""
        self._clear = clear

    def look(self, now: float, *, wanted: bool) -> None:
        """Set the slots, once every ``limits.UPLINK_SPAN_S``.

        Args:
            now: the time.
            wanted: whether every slot is taken, so that one more would be used.
        """
        if self._since is None:
            self._since = now
        span = now - self._since
        if span < limits.UPLINK_SPAN_S:
            return
        rate = self._bytes / span
        self._since, self._bytes = now, 0
        known, self._best = self._best, max(rate, self._best * (1 - _FADES * min(span, 1.0)))
        least, most = limits.UPLOAD_SLOTS_RANGE
        if self._clear and wanted:
            self.slots = min(limits.UPLOAD_SLOTS_MOST, self.slots + 1)
        elif self.slots > most:
            self.slots -= not self._clear
        elif rate > known:
            return  # nothing to compare with
        elif rate and rate >= _FULL * self._best:
            self.slots = max(least, self.slots - 1)
        elif wanted and rate < _ROOM * self._best:
            self.slots = min(most, self.slots + 1)
