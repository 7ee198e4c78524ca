"""Peers that may be called, when, and when again. Pure: no sockets, time is a parameter.

A target is a peer the overlay joined. It is due at once or after ``limits.DIAL_WAIT_S``, again
``limits.DIAL_RETRY_S`` after a failure or a useless connection (doubling, spread by 20 %). Of those
that are due anyone may be the next: if everybody called whom he heard of first, all would call the
same few, and their swarm would hang together by those.
Does NOT know connections. Threat: addresses of strangers; bounded, and slower each time.
Tests: ``test_roster``, ``test_circle``.
"""

from __future__ import annotations

import random

from attrs import define, field

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.ids import NodeID

_JITTER = 0.2
_HOPELESS = 3
"""Tries in vain after which a target does not count as a way out any more."""


@define(eq=False)
class Target:
    """A peer that may be called.

    Attributes:
        address: where.
        node_id: who the overlay says is there.
        due: when it may be called next.
        open: whether strangers can call it, as far as the overlay knows.
        tries: calls in a row without a useful connection.
        blocked: whether it is known that TCP does not get there.
    """

    address: Address
    node_id: NodeID
    due: float
    open: bool = True
    tries: int = 0
    blocked: bool = False

    @property
    def hopeful(self) -> bool:
        """Whether calling it may well help."""
        return self.tries < _HOPELESS


@define
class Targets:
    """All peers of one content that may be called.

    Args:
        rng: spreads retries, chooses among those that are due.
    """

    rng: random.Random
    _by_id: dict[NodeID, Target] = field(factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, node_id: NodeID) -> Target | None:
        """Return the target with this id."""
        return self._by_id.get(node_id)

    def all(self) -> list[Target]:
        """Return every target, oldest first."""
        return list(self._by_id.values())

    def add(self, address: Address, node_id: NodeID, due: float, *, is_open: bool = True) -> None:
        """Learn of a peer, or that it is there again: then its back-off is over."""
        known = self._by_id.get(node_id)
        if known is not None and known.address == address:
            known.due, known.tries, known.open = min(known.due, due), 0, is_open
        elif known is not None or len(self) < limits.PEERS_PER_OWN_TOPIC:
            self._by_id[node_id] = Target(address, node_id, due, is_open)

    def remove(self, node_id: NodeID) -> Target | None:
        """Forget a peer, and return what was known of it."""
        return self._by_id.pop(node_id, None)

    def due(self, now: float) -> list[Target]:
        """Return those that may be called now, in the order of chance."""
        due = [target for target in self._by_id.values() if target.due <= now]
        self.rng.shuffle(due)
        return due

    def later(self, target: Target, now: float) -> None:
        """Put a target off, twice as long each time."""
        first, longest = limits.DIAL_RETRY_S
        pause = min(longest, first * 2 ** min(target.tries, 16))
        target.tries += 1
        target.due = now + pause * self.rng.uniform(1 - _JITTER, 1 + _JITTER)

    def put_off(self, node_id: NodeID, now: float) -> None:
        """Leave a peer alone for the longest pause: we have just made room for another."""
        target = self._by_id.get(node_id)
        if target is not None:
            target.due = max(target.due, now + limits.DIAL_RETRY_S[1])
