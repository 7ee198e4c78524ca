"""Iterative lookup of nodes near a target: Kademlia's, driven by the initiator. Pure.

Used to keep the routing table, to find the storers of a topic, and as the last resort of
``lookup`` when the walks met nodes that take queries and drop them. Does NOT send: ``due`` says
whom to ask, and the caller reports what came back.

States of a candidate: known -> asked -> answered | silent. A slot is free again
``limits.ITERATE_SLOT_S`` after its question, though the answer still counts.

Threat: nodes that name made-up nodes; at most ``limits.ITERATE_NODES`` candidates are kept, the
nearest, and of one subnet (global addresses) the nearest ``limits.SUBNET_PER_TABLE`` count, so that
who owns one cannot be all that is near a key. Tests: ``test_iterate``, ``test_eclipse``.
Source: Kademlia (2002), section 2.3.
"""

from __future__ import annotations

import enum
from bisect import insort
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from attrs import define, field

from p2pdist import limits
from p2pdist.addresses import Address, subnet_key
from p2pdist.ids import distance
from p2pdist.overlay.fields import NodeEntry


class _State(enum.Enum):
    KNOWN = 0
    ASKED = 1
    ANSWERED = 2
    SILENT = 3


@define(eq=False)
class _Candidate:
    entry: NodeEntry
    distance: int
    state: _State = _State.KNOWN
    asked_at: float = 0.0


@define
class Iteration:
    """One convergence on the nodes nearest to ``target``.

    Args:
        target: 20 bytes.
        own: our own node id and addresses are never candidates: the id.
        wanted: done when so many of the nearest have answered.
    """

    target: bytes
    own: bytes
    wanted: int
    _candidates: dict[Address, _Candidate] = field(init=False, factory=dict)
    _ranked: list[_Candidate] = field(init=False, factory=list)

    def learn(self, entries: Iterable[NodeEntry]) -> None:
        """Add candidates; the nearest ``limits.ITERATE_NODES`` stay."""
        for entry in entries:
            if entry.node_id != self.own and entry.address not in self._candidates:
                candidate = _Candidate(entry, distance(entry.node_id, self.target))
                self._candidates[entry.address] = candidate
                insort(self._ranked, candidate, key=_nearness)
        for candidate in self._ranked[limits.ITERATE_NODES :]:
            if candidate.state is not _State.ASKED:
                del self._candidates[candidate.entry.address]
                self._ranked.remove(candidate)

    def answered(self, address: Address) -> None:
        """Note that the node at ``address`` answered."""
        candidate = self._candidates.get(address)
        if candidate is not None:
            candidate.state = _State.ANSWERED

    def silent(self, address: Address) -> None:
        """Note that the node at ``address`` left all tries unanswered."""
        candidate = self._candidates.get(address)
        if candidate is not None and candidate.state is not _State.ANSWERED:
            candidate.state = _State.SILENT

    def due(self, now: float) -> list[NodeEntry]:
        """Return whom to ask now, at most ``limits.ALPHA`` at a time; they count as asked."""
        busy = sum(
            1
            for c in self._ranked
            if c.state is _State.ASKED and now - c.asked_at < limits.ITERATE_SLOT_S
        )
        asks = []
        for candidate in islice(self._alive(), self.wanted):
            if busy >= limits.ALPHA:
                break
            if candidate.state is _State.KNOWN:
                candidate.state, candidate.asked_at = _State.ASKED, now
                asks.append(candidate.entry)
                busy += 1
        return asks

    def next_timer(self, now: float) -> float | None:
        """Return when a slot next falls free, or ``None``."""
        return min(
            (
                c.asked_at + limits.ITERATE_SLOT_S
                for c in self._candidates.values()
                if c.state is _State.ASKED and c.asked_at + limits.ITERATE_SLOT_S > now
            ),
            default=None,
        )

    @property
    def done(self) -> bool:
        """Whether the nearest ``wanted`` that are not silent have all answered."""
        return all(c.state is _State.ANSWERED for c in islice(self._alive(), self.wanted))

    def nearest(self) -> list[NodeEntry]:
        """Return the nodes that answered, nearest first, at most ``wanted``."""
        answered = (c.entry for c in self._alive() if c.state is _State.ANSWERED)
        return list(islice(answered, self.wanted))

    def _alive(self) -> Iterator[_Candidate]:
        """Yield those that are not silent, nearest first, few of one subnet."""
        seen: Counter[bytes] = Counter()
        for candidate in self._ranked:
            if candidate.state is _State.SILENT:
                continue
            subnet = subnet_key(candidate.entry.address)
            if subnet is not None:
                seen[subnet] += 1
                if seen[subnet] > limits.SUBNET_PER_TABLE:
                    continue
            yield candidate


def _nearness(candidate: _Candidate) -> int:
    return candidate.distance
