"""Which of the connections between complete nodes are closed, and when. Pure.

Nothing is exchanged between them, but the census goes over connections: with a few each, news of
the fleet still reach everybody, and the last "done" has time to go round before the others close.
Tests: ``test_fleet``.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define

from p2pdist import limits
from p2pdist.ids import NodeID


@define
class Parting:
    """The surplus of connections to complete nodes of a node that is complete."""

    _since: float | None = None

    def surplus(self, complete: Sequence[NodeID], now: float) -> Sequence[NodeID]:
        """Return whom to part from now: the last met, beyond ``limits.DONE_PEERS``.

        Args:
            complete: connected peers that are complete, if we are; else none.
            now: seconds.
        """
        if len(complete) <= limits.DONE_PEERS:
            self._since = None
            return ()
        if self._since is None:
            self._since = now
        return complete[limits.DONE_PEERS :] if now - self._since >= limits.DONE_LINGER_S else ()
