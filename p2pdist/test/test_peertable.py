"""Tests of the PeerTable: who is remembered, who goes first, who is told."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.addresses import Address, Scope, scope
from p2pdist.ids import NodeID, Topic, distance
from p2pdist.overlay.messages import (
    Status,
)
from p2pdist.overlay.peertable import PeerEntry, PeerTable
from p2pdist.test import strategies
from p2pdist.test.support import TestCase, given

OWN = NodeID(bytes(20))
NODE = NodeID(b"n" * 20)
TOPIC = Topic(b"t" * 20)
ASKER = Address("10.9.9.9", 1)
TTL = limits.PEER_TTL_S


def topic(number: int) -> Topic:
    """Return the topic at distance ``number`` from us."""
    return Topic(number.to_bytes(20, "big"))


def spread(number: int) -> Address:
    """Return a private address of a /24 of its own."""
    return Address(f"10.{number >> 8}.{number & 255}.1", 7667)


class PeerTableCase(TestCase):
    """A table, and short words for what happens to it."""

    def setUp(self):
        """Make an empty table."""
        self.table = PeerTable(OWN, random.Random(1))

    def put(self, address: Address, now: float = 0.0, **more: Any) -> PeerEntry | None:
        """Announce a peer."""
        facts = {"status": Status.SEED, "sequence": 0, "topic": TOPIC, "node_id": NODE, **more}
        joined = facts.pop("joined", False)
        return self.table.put(
            facts["topic"],
            facts["node_id"],
            address,
            facts["status"],
            facts["sequence"],
            now,
            joined=joined,
        )

    def addresses(self, of: Topic = TOPIC) -> set[Address]:
        """Return who is known."""
        return {entry.address for entry in self.table.entries(of)}

    def sample(self, count: int = 99, now: float = 0.0, **more: Any) -> list[Address]:
        """Return whom an asker is told of."""
        return self.table.sample(
            TOPIC,
            count,
            now,
            asker=more.get("asker", ASKER),
            at_least=more.get("at_least", Scope.LOOPBACK),
        )


class LifeTests(PeerTableCase):
    """Coming, staying, leaving."""

    def test_put_and_get(self):
        """A peer that announced itself is known by topic and address."""
        entry = self.put(spread(1))
        self.assertIs(entry, self.table.get(TOPIC, spread(1)))
        self.assertTrue(self.table.knows(TOPIC, spread(1)))
        self.assertFalse(self.table.knows(TOPIC, spread(2)))
        self.assertFalse(self.table.knows(topic(1), spread(1)))
        self.assertIsNone(self.table.get(topic(1), spread(1)))
        self.assertEqual((1, 1), (self.table.topics, self.table.total))

    def test_expiry(self):
        """A peer that does not speak again is forgotten after half an hour."""
        self.put(spread(1))
        self.put(spread(2), TTL / 2)
        self.assertEqual(2, self.table.count(TOPIC, TTL - 1))
        self.assertEqual(1, self.table.count(TOPIC, TTL))
        self.assertEqual(0, self.table.count(TOPIC, TTL, but=spread(2)))
        self.assertEqual([spread(2)], self.sample(now=TTL))
        self.table.expire(TTL)
        self.assertEqual({spread(2)}, self.addresses())
        self.table.expire(2 * TTL)
        self.assertEqual((0, 0), (self.table.topics, self.table.total))

    def test_refresh(self):
        """Speaking again starts its time anew and takes the new status."""
        self.put(spread(1), status=Status.LEECH)
        entry = self.put(spread(1), TTL - 1, status=Status.SEED, sequence=1)
        assert entry is not None
        self.assertEqual((Status.SEED, 2 * TTL - 1), (entry.status, entry.expires))
        self.assertEqual(1, self.table.total)

    def test_leaving(self):
        """LEFT takes the peer out; of a stranger it changes nothing."""
        self.assertIsNone(self.put(spread(1), status=Status.LEFT))
        self.assertEqual(0, self.table.topics)
        self.put(spread(1))
        self.assertIsNone(self.put(spread(1), sequence=1, status=Status.LEFT))
        self.assertEqual((0, 0), (self.table.topics, self.table.total))

    def test_remove(self):
        """A peer found dead is taken out; twice is once."""
        self.put(spread(1))
        self.table.remove(TOPIC, spread(1))
        self.table.remove(TOPIC, spread(1))
        self.assertEqual(0, self.table.total)

    def test_older_statements(self):
        """A datagram that was overtaken changes nothing, not even when it says LEFT."""
        self.put(spread(1), sequence=5)
        for status in (Status.LEECH, Status.LEFT):
            entry = self.put(spread(1), 10.0, sequence=4, status=status)
            assert entry is not None
            self.assertEqual((Status.SEED, 5, TTL), (entry.status, entry.sequence, entry.expires))

    def test_restarted_machine(self):
        """A lower number counts once no datagram can be that late; other nodes' at once."""
        self.put(spread(1), sequence=5)
        late = self.put(spread(1), limits.SEQUENCE_HOLD_S - 1, sequence=1, status=Status.LEECH)
        assert late is not None
        self.assertEqual(5, late.sequence)
        again = self.put(spread(1), limits.SEQUENCE_HOLD_S, sequence=1, status=Status.LEECH)
        assert again is not None
        self.assertEqual((1, Status.LEECH), (again.sequence, again.status))
        other = self.put(spread(1), limits.SEQUENCE_HOLD_S, sequence=0, node_id=NodeID(b"o" * 20))
        assert other is not None
        self.assertEqual((0, b"o" * 20), (other.sequence, other.node_id))

    def test_joined_stays(self):
        """Proof given once holds for that node at that address, and for no other node."""
        entry = self.put(spread(1), sequence=1, joined=True)
        assert entry is not None
        self.put(spread(1), sequence=2)
        self.assertTrue(entry.joined)
        self.put(spread(1), sequence=3, node_id=NodeID(b"o" * 20))
        self.assertFalse(entry.joined)
        self.put(spread(1), sequence=2, node_id=NodeID(b"o" * 20), joined=True)
        self.assertTrue(entry.joined, "a proof counts even in an overtaken datagram")


class SampleTests(PeerTableCase):
    """Whom an asker is told of."""

    def test_seeds_first(self):
        """Seeds come before leeches, those before idle ones."""
        order = [Status.IDLE, Status.LEECH, Status.SEED]
        for number in range(30):
            self.put(spread(number), status=order[number % 3])
        told = self.sample()
        statuses = [entry.status for a in told if (entry := self.table.get(TOPIC, a)) is not None]
        self.assertEqual(sorted(statuses, reverse=True), statuses)
        self.assertEqual(30, len(told))
        self.assertEqual(set(told[:10]), set(self.sample(10)), "all seeds, and nobody else")

    def test_random_among_equals(self):
        """Everybody's turn comes."""
        for number in range(20):
            self.put(spread(number))
        told = [frozenset(self.sample(3)) for _ in range(60)]
        self.assertEqual(20, len(frozenset.union(*told)))

    @given(
        st.lists(strategies.addresses(), unique=True, max_size=20),
        strategies.addresses(),
        st.sampled_from(Scope),
        st.integers(0, 12),
    )
    def test_scope_and_family(
        self, known: list[Address], asker: Address, at_least: Scope, count: int
    ):
        """No peer of another family or narrower scope is told, nor the asker itself."""
        self.table = PeerTable(OWN, random.Random(1))
        for address in [*known, asker]:
            self.put(address)
        told = self.sample(count, asker=asker, at_least=at_least)
        fitting = {
            address
            for address in self.addresses() - {asker}
            if (":" in address.host) == (":" in asker.host) and scope(address) >= at_least
        }
        self.assertTrue(set(told) <= fitting)
        self.assertEqual(min(count, len(fitting)), len(set(told)))


class OwnTopicTests(PeerTableCase):
    """Topics of this node's own contents."""

    def test_own_topics_stay(self):
        """An own topic exists without peers; a foreign one does not."""
        self.table.own(TOPIC)
        self.assertEqual(1, self.table.topics)
        self.put(spread(1))
        self.table.remove(TOPIC, spread(1))
        self.assertEqual(1, self.table.topics)
        self.table.disown(TOPIC)
        self.assertEqual(0, self.table.topics)
        self.table.disown(TOPIC)

    def test_disowned_peers_stay(self):
        """What others told us of a content is remembered after we left it."""
        self.table.own(TOPIC)
        self.put(spread(1))
        self.table.disown(TOPIC)
        self.assertEqual({spread(1)}, self.addresses())

    def test_larger_cap(self):
        """An own topic holds 512 peers, a foreign one 256."""
        for own, cap in [(False, limits.PEERS_PER_TOPIC), (True, limits.PEERS_PER_OWN_TOPIC)]:
            self.table = PeerTable(OWN, random.Random(1))
            if own:
                self.table.own(TOPIC)
            for number in range(cap + 10):
                self.put(spread(number))
            self.assertEqual(cap, len(self.addresses()))
            self.assertEqual(cap, self.table.total)

    def test_never_evicted(self):
        """However far an own topic is, foreign ones do not push it out."""
        far = Topic(b"\xff" * 20)
        self.table.own(far)
        self.put(spread(1), topic=far)
        for number in range(limits.TOPICS + 5):
            self.put(spread(1), topic=topic(number + 1))
        self.assertEqual(limits.TOPICS, self.table.topics)
        self.assertEqual({spread(1)}, self.addresses(far))


class TopicCapTests(PeerTableCase):
    """Too many topics."""

    def test_farthest_topic_goes(self):
        """A nearer topic pushes out the farthest; a farther one is refused."""
        for number in range(limits.TOPICS):
            self.put(spread(number % 200), topic=topic(1000 + number))
        self.assertIsNone(self.put(spread(1), topic=topic(5000)))
        self.assertIsNotNone(self.put(spread(1), topic=topic(1)))
        self.assertEqual(set(), self.addresses(topic(1000 + limits.TOPICS - 1)))
        self.assertEqual((limits.TOPICS, limits.TOPICS), (self.table.topics, self.table.total))

    def test_expired_topics_go_first(self):
        """What ran out makes room before anything living does."""
        for number in range(limits.TOPICS):
            self.put(spread(1), float(number), topic=topic(1000 + number))
        self.assertIsNotNone(self.put(spread(1), TTL + 0.5, topic=topic(5000)))
        self.assertEqual(set(), self.addresses(topic(1000)))
        self.assertEqual({spread(1)}, self.addresses(topic(1000 + limits.TOPICS - 1)))

    def test_farthest_topic_is_known_whatever_came_and_went(self):
        """Topics that emptied, became our own, or no longer are, are counted as what they are."""
        self.patch(limits, "TOPICS", 3)
        for far in (10, 20, 30):
            self.put(spread(1), topic=topic(far))
        self.table.remove(topic(30), spread(1))
        self.put(spread(1), topic=topic(40))
        self.table.own(topic(40))
        self.put(spread(1), topic=topic(15))
        self.assertEqual(set(), self.addresses(topic(20)))
        self.table.disown(topic(40))
        self.put(spread(1), topic=topic(12))
        left = [number for number in range(50) if self.addresses(topic(number))]
        self.assertEqual([10, 12, 15], left)

    def test_full_table_is_swept_now_and_then(self):
        """Refusing costs little: what ran out is looked for once in UPKEEP_EVERY_S."""
        self.patch(limits, "TOPICS", 2)
        for far in (10, 20):
            self.put(spread(1), topic=topic(far))
        for later, stored in [(-1.0, 0), (1.0, 0), (limits.UPKEEP_EVERY_S - 1, 1)]:
            self.put(spread(1), TTL + later, topic=topic(99))
            self.assertEqual(stored, len(self.addresses(topic(99))))

    def test_only_own_topics(self):
        """A node with as many contents as topics fit stores no foreign one."""
        for number in range(limits.TOPICS):
            self.table.own(topic(1000 + number))
        self.assertIsNone(self.put(spread(1), topic=topic(1)))
        self.assertGreater(distance(topic(1000), OWN), distance(topic(1), OWN))


class PeerCapTests(PeerTableCase):
    """Too many peers (decision 13)."""

    def test_crowded_subnet_loses_its_oldest(self):
        """Over the cap, the most represented /24 loses its oldest peer to a newcomer."""
        for number in range(limits.PEERS_PER_TOPIC - 10):
            self.put(Address("10.0.0.1", 1 + number), float(number))
        for number in range(10):
            self.put(spread(1 + number), 500.0)
        self.assertIsNotNone(self.put(spread(99), 500.0))
        self.assertFalse(self.table.knows(TOPIC, Address("10.0.0.1", 1)))
        self.assertTrue(self.table.knows(TOPIC, Address("10.0.0.1", 2)))
        self.assertEqual(limits.PEERS_PER_TOPIC, len(self.addresses()))

    def test_crowded_subnet_is_refused(self):
        """A newcomer of the most represented subnet is refused: it cannot push out the others."""
        for number in range(limits.PEERS_PER_TOPIC - 10):
            self.put(Address("10.0.0.1", 1 + number))
        others = [spread(1 + number) for number in range(10)]
        for address in others:
            self.put(address)
        for number in range(300):
            self.assertIsNone(self.put(Address("10.0.0.2", 1 + number)))
        self.assertTrue(set(others) <= self.addresses())

    def test_balance(self):
        """Subnets that are all alike keep what they have."""
        for number in range(limits.PEERS_PER_TOPIC):
            self.put(spread(number))
        before = self.addresses()
        self.assertIsNone(self.put(spread(999)))
        self.assertEqual(before, self.addresses())

    def test_members_stay(self):
        """Who proved to know the content is never evicted for who did not."""
        for number in range(limits.PEERS_PER_TOPIC):
            self.put(Address("10.0.0.1", 1 + number), joined=True)
        self.assertIsNone(self.put(spread(1)))
        self.assertEqual(limits.PEERS_PER_TOPIC, len(self.addresses()))
        for port, now in [(7, 3.0), (8, 1.0), (9, 2.0)]:
            self.put(Address("10.0.0.1", port), now, node_id=NodeID(b"o" * 20))
        self.assertIsNotNone(self.put(spread(1)))
        self.assertFalse(self.table.knows(TOPIC, Address("10.0.0.1", 8)), "the oldest stranger")

    def test_expired_peers_go_first(self):
        """A peer whose time ran out makes room, whatever its subnet."""
        self.put(spread(0), 0.0)
        for number in range(1, limits.PEERS_PER_TOPIC):
            self.put(Address("10.0.0.1", number), 100.0)
        self.assertIsNotNone(self.put(Address("10.0.0.1", 9999), TTL + 1.0))
        self.assertFalse(self.table.knows(TOPIC, spread(0)))

    def test_ports_of_one_host(self):
        """A global host is so many peers of a topic at most; local ones may be more."""
        for number in range(1, 3 * limits.PORTS_PER_HOST):
            self.put(Address("8.8.8.8", number))
            self.put(Address("2600::1", number))
            self.put(Address("127.0.0.1", number))
        hosts = [address.host for address in self.addresses()]
        self.assertEqual(limits.PORTS_PER_HOST, hosts.count("8.8.8.8"))
        self.assertEqual(limits.PORTS_PER_HOST, hosts.count("2600::1"))
        self.assertEqual(3 * limits.PORTS_PER_HOST - 1, hosts.count("127.0.0.1"))

    def test_total(self):
        """All topics together are bounded; own topics and what ran out make exceptions."""
        count, number = 0, 0
        while count < limits.PEERS_TOTAL:
            number += 1
            for port in range(limits.PEERS_PER_TOPIC):
                self.put(spread(port), float(number), topic=topic(number))
                count += 1
        self.assertEqual(limits.PEERS_TOTAL, self.table.total)
        self.assertIsNone(self.put(spread(1), float(number), topic=topic(999)))
        self.table.own(TOPIC)
        self.assertIsNotNone(self.put(spread(1), float(number)))
        self.assertIsNotNone(self.put(spread(1), TTL + 1.0, topic=topic(999)))
        self.assertLess(self.table.total, limits.PEERS_TOTAL)

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 3),
                strategies.addresses(),
                st.sampled_from(Status),
                st.integers(0, 3),
                st.floats(0, TTL),
                st.booleans(),
            ),
            max_size=60,
        )
    )
    def test_totals_are_true(self, told: list[tuple[int, Address, Status, int, float, bool]]):
        """Whatever is told, the total is the number of entries and no foreign topic is empty."""
        self.table = PeerTable(OWN, random.Random(1))
        self.table.own(topic(0))
        now = 0.0
        for number, address, status, sequence, passed, expire in told:
            now += passed
            entry = self.table.put(topic(number), NODE, address, status, sequence, now)
            self.assertEqual(entry, self.table.get(topic(number), address))
            if expire:
                self.table.expire(now)
        known = [self.table.entries(topic(number)) for number in range(4)]
        self.assertEqual(self.table.total, sum(map(len, known)))
        self.assertEqual(self.table.topics, 1 + sum(1 for entries in known[1:] if entries))
