"""The PeerTable: topic -> peers that told us they have, or want, the content. Pure.

Job: remember who announced what, with status and expiry; give a fair sample of them. Does NOT
verify content. Threat: floods of topics, peers and addresses; every level is capped, own topics are
never evicted, and a topic over its cap loses a peer of the most represented subnet or refuses the
newcomer (decision 13). Tests: ``test_peertable``.
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Iterator

from attrs import define, field

from p2pdist import limits
from p2pdist.addresses import Address, Scope, eviction_key, is_ipv6, limit_key, scope
from p2pdist.ids import NodeID, Topic, distance
from p2pdist.overlay.messages import (
    Status,
)


@define(eq=False, weakref_slot=False)
class PeerEntry:
    """A peer of one topic.

    Attributes:
        node_id: its node id, as it said.
        address: from the UDP header that announced it.
        status: idle, leech or seed.
        sequence: of its last statement; older ones are ignored.
        expires: when it is forgotten unless it speaks again.
        joined: whether it proved knowledge of the content's key to us.
    """

    node_id: NodeID
    address: Address
    status: Status
    sequence: int
    expires: float
    joined: bool = False


@define
class PeerTable:
    """Who has what, as far as others told us.

    Args:
        own_id: decides which foreign topic goes first when there are too many.
        rng: makes samples fair.
    """

    own_id: NodeID
    rng: random.Random
    _topics: dict[Topic, dict[Address, PeerEntry]] = field(init=False, factory=dict)
    _own: dict[Topic, None] = field(init=False, factory=dict)
    _foreign: list[tuple[int, Topic]] = field(init=False, factory=list)
    """The other topics by distance from us: in a flood of topics the farthest is found at once."""
    _total: int = field(init=False, default=0)
    _swept_at: float = field(init=False, default=-limits.UPKEEP_EVERY_S)

    def own(self, topic: Topic) -> None:
        """Mark a topic as one of this node's contents: never evicted, larger cap."""
        if topic in self._own:
            return
        if topic in self._topics:
            self._foreign.pop(bisect_left(self._foreign, self._ranked(topic)))
        self._own[topic] = None
        self._topics.setdefault(topic, {})

    def disown(self, topic: Topic) -> None:
        """Treat the topic as foreign again."""
        if topic not in self._own:
            return
        del self._own[topic]
        if self._topics[topic]:
            insort(self._foreign, self._ranked(topic))
        else:
            del self._topics[topic]

    def knows(self, topic: Topic, address: Address) -> bool:
        """Tell whether ``address`` is registered for ``topic``."""
        return address in self._topics.get(topic, {})

    def get(self, topic: Topic, address: Address) -> PeerEntry | None:
        """Return the entry of ``address``."""
        return self._topics.get(topic, {}).get(address)

    def put(
        self,
        topic: Topic,
        node_id: NodeID,
        address: Address,
        status: Status,
        sequence: int,
        now: float,
        *,
        joined: bool = False,
    ) -> PeerEntry | None:
        """Register or refresh a peer; LEFT removes it.

        Args:
            topic: of the content.
            node_id: the peer's node.
            address: from the UDP header.
            status: what it does now.
            sequence: of its statement; a lower one than known changes nothing for a minute (an
                older datagram), and then counts as a new life of the node.
            now: seconds.
            joined: it proved knowledge of the content's key.

        Returns:
            The entry, or ``None`` when the peer left or the table refuses it.
        """
        peers = self._topics.get(topic)
        entry = peers.get(address) if peers is not None else None
        if entry is not None and entry.node_id == node_id and sequence < entry.sequence:
            entry.joined = entry.joined or joined
            if now - (entry.expires - limits.PEER_TTL_S) < limits.SEQUENCE_HOLD_S:
                return entry
        if status is Status.LEFT:
            if peers is not None and entry is not None:
                self._drop(topic, address)
            return None
        if entry is None:
            if not self._make_room(topic, address, now):
                return None
            entry = PeerEntry(node_id, address, status, sequence, 0.0)
            if topic not in self._topics:
                self._topics[topic] = {}
                insort(self._foreign, self._ranked(topic))
            self._topics[topic][address] = entry
            self._total += 1
        entry.joined = joined or (entry.joined and entry.node_id == node_id)
        entry.node_id, entry.status, entry.sequence = node_id, status, sequence
        entry.expires = now + limits.PEER_TTL_S
        return entry

    def remove(self, topic: Topic, address: Address) -> None:
        """Forget a peer that turned out dead."""
        if self.knows(topic, address):
            self._drop(topic, address)

    def count(self, topic: Topic, now: float, but: Address | None = None) -> int:
        """Return how many live peers are known, not counting ``but``."""
        return sum(1 for entry in self._live(topic, now) if entry.address != but)

    def sample(
        self, topic: Topic, count: int, now: float, *, asker: Address, at_least: Scope
    ) -> list[Address]:
        """Return up to ``count`` peers for ``asker``: seeds first, random among equals.

        Args:
            topic: of the content.
            count: at most so many.
            now: seconds.
            asker: is left out; its address family decides the peers'.
            at_least: peers of narrower scope are left out (decision 15).
        """
        fitting = [
            entry
            for entry in self._live(topic, now)
            if entry.address != asker
            and is_ipv6(entry.address) == is_ipv6(asker)
            and scope(entry.address) >= at_least
        ]
        self.rng.shuffle(fitting)
        fitting.sort(key=lambda entry: -entry.status)
        return [entry.address for entry in fitting[:count]]

    def entries(self, topic: Topic) -> list[PeerEntry]:
        """Return everything known of ``topic``, expired or not."""
        return list(self._topics.get(topic, {}).values())

    def expire(self, now: float) -> None:
        """Forget what ran out."""
        for topic in list(self._topics):
            for entry in self.entries(topic):
                if entry.expires <= now:
                    self._drop(topic, entry.address)

    @property
    def topics(self) -> int:
        """How many topics have entries or are our own."""
        return len(self._topics)

    @property
    def total(self) -> int:
        """Entries in all topics."""
        return self._total

    def _live(self, topic: Topic, now: float) -> Iterator[PeerEntry]:
        return (e for e in self._topics.get(topic, {}).values() if e.expires > now)

    def _drop(self, topic: Topic, address: Address) -> None:
        peers = self._topics[topic]
        del peers[address]
        self._total -= 1
        if not peers and topic not in self._own:
            del self._topics[topic]
            self._foreign.pop(bisect_left(self._foreign, self._ranked(topic)))

    def _ranked(self, topic: Topic) -> tuple[int, Topic]:
        return distance(topic, self.own_id), topic

    def _sweep(self, now: float) -> None:
        """Forget what ran out, unless that was done lately: who is refused must cost little."""
        if now - self._swept_at >= limits.UPKEEP_EVERY_S:
            self._swept_at = now
            self.expire(now)

    def _make_room(self, topic: Topic, address: Address, now: float) -> bool:
        """Make place for one more entry, or return False."""
        own = topic in self._own
        if topic not in self._topics and len(self._topics) >= limits.TOPICS:
            self._sweep(now)
            if len(self._topics) >= limits.TOPICS and not self._evict_topic(topic):
                return False
        peers = self._topics.get(topic, {})
        if scope(address) is Scope.GLOBAL:
            host = limit_key(address)
            same = sum(1 for entry in peers.values() if limit_key(entry.address) == host)
            if same >= limits.PORTS_PER_HOST:
                return False
        if self._total >= limits.PEERS_TOTAL and not own:
            self._sweep(now)
            if self._total >= limits.PEERS_TOTAL:
                return False
        cap = limits.PEERS_PER_OWN_TOPIC if own else limits.PEERS_PER_TOPIC
        return len(peers) < cap or self._evict_peer(topic, address, now)

    def _evict_topic(self, newcomer: Topic) -> bool:
        """Drop the foreign topic farthest from us if ``newcomer`` is nearer."""
        if not self._foreign or self._foreign[-1] <= self._ranked(newcomer):
            return False
        farthest = self._foreign[-1][1]
        for entry in self.entries(farthest):
            self._drop(farthest, entry.address)
        return True

    def _evict_peer(self, topic: Topic, newcomer: Address, now: float) -> bool:
        """Drop an expired peer or the oldest of the most represented subnet; never a joined one."""
        peers = self._topics[topic]
        gone = next((e for e in peers.values() if e.expires <= now), None)
        if gone is None:
            crowds = Counter(eviction_key(e.address) for e in peers.values() if not e.joined)
            if not crowds:
                return False
            subnet, size = crowds.most_common(1)[0]
            if size <= crowds.get(eviction_key(newcomer), 0) + 1:
                return False  # the newcomer's own subnet is the most represented: refuse it
            gone = min(
                (e for e in peers.values() if not e.joined and eviction_key(e.address) == subnet),
                key=lambda entry: entry.expires,
            )
        self._drop(topic, gone.address)
        return True
