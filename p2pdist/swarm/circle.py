"""How many peers one content is exchanged with, and who of them stays. Pure: decides, does not act.

The circle is the peers a node is connected to for one content::

    called    while fewer than CIRCLE_WANTED are in it, or than CIRCLE_OWN that we called ourselves
    let in    up to CIRCLE_MOST, of which CIRCLE_OWN places are kept for peers we call
    swapped   in a full circle a caller takes the place of the caller that was of no use longest, at
              most once in CIRCLE_SWAP_S: else a full swarm would have no place for newcomers
    replaced  who was of no use for CIRCLE_USELESS_S, one in CIRCLE_REPLACE_S, while others wait

With 16 to 32 random peers each, a thousand nodes are a few steps apart and stay connected while
many leave. Does NOT know addresses (``targets``) or the process's bound (``admission``).
Threat: strangers with any number of keys who fill every place: callers never displace a peer that
we called. Tests: ``test_circle``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Protocol as Structural

from attrs import define

from p2pdist import limits
from p2pdist.ids import NodeID


class Kept(Structural):
    """A connection, as far as this module looks."""

    @property
    def outgoing(self) -> bool:
        """Whether we called."""

    @property
    def useful_at(self) -> float:
        """Last time a piece's bytes moved either way; at first the time of connecting."""


def _own(circle: Collection[Kept]) -> int:
    return sum(kept.outgoing for kept in circle)


@define
class Circle:
    """The policy of one content's connections."""

    _swapped_at: float = -math.inf
    _replaced_at: float = -math.inf

    def calls(self, circle: Collection[Kept], calling: int) -> int:
        """Return how many more peers to call now.

        Of calls under way every second counts: some fail, and one too many does no harm.
        """
        wanted = max(limits.CIRCLE_WANTED - len(circle), limits.CIRCLE_OWN - _own(circle))
        free = limits.CIRCLE_MOST - len(circle)
        return max(0, min(2 * wanted, free, limits.DIALS) - calling)

    def lack(self, circle: Collection[Kept], waiting: int) -> int:
        """Return how many more peers to look for, when so many are known that may be called."""
        wanted = limits.CIRCLE_WANTED + limits.CIRCLE_SPARE - len(circle)
        return max(0, max(wanted, limits.CIRCLE_OWN - _own(circle)) - waiting)

    def room(self, circle: Collection[Kept]) -> bool:
        """Tell whether there is a free place for a caller."""
        callers = len(circle) - _own(circle)
        free = len(circle) < limits.CIRCLE_MOST
        return free and callers < limits.CIRCLE_MOST - limits.CIRCLE_OWN

    def admit(
        self, circle: Mapping[NodeID, Kept], now: float, *, outgoing: bool
    ) -> tuple[bool, NodeID | None]:
        """Return whether a new connection is let in, and who has to go for it, if anybody."""
        if self.room(circle.values()) or (outgoing and len(circle) < limits.CIRCLE_MOST):
            return True, None
        if outgoing or now - self._swapped_at < limits.CIRCLE_SWAP_S:
            return False, None
        callers_at = {key: kept.useful_at for key, kept in circle.items() if not kept.outgoing}
        goes = min(callers_at, key=callers_at.__getitem__, default=None)
        if goes is None or now - callers_at[goes] < limits.TICK_S:
            return False, None
        self._swapped_at = now
        return True, goes

    def replace(
        self, circle: Mapping[NodeID, Kept], now: float, others: Callable[[], bool]
    ) -> NodeID | None:
        """Return who should go because it is of no use, or ``None``.

        Args:
            circle: the connections.
            now: the time.
            others: tells whether somebody waits to be called.
        """
        enough = len(circle) >= limits.CIRCLE_WANTED
        if not enough or now - self._replaced_at < limits.CIRCLE_REPLACE_S:
            return None
        key = min(circle, key=lambda key: circle[key].useful_at)
        if now - circle[key].useful_at < limits.CIRCLE_USELESS_S or not others():
            return None
        self._replaced_at = now
        return key
