"""Tests of the doubts about first hops whose walks bring nothing."""

from __future__ import annotations

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.ids import NodeID, Topic
from p2pdist.overlay.doubts import Doubts
from p2pdist.overlay.lookup import QUERY_BYTES, Candidate, Lookup, Walk
from p2pdist.overlay.messages import Offer
from p2pdist.simulation.population import Mix, Role
from p2pdist.simulation.study import Study, World, summarize
from p2pdist.test.support import TestCase

HOP, OTHER = Address("8.8.8.8", 1), Address("9.9.9.9", 1)


class DoubtsTests(TestCase):
    """Whom walks avoid."""

    def setUp(self):
        """Nobody is doubted yet."""
        self.doubts = Doubts()

    def fail_walks(self, count: int, now: float = 0.0) -> None:
        """Let walks through ``HOP`` bring nothing."""
        for _ in range(count):
            self.doubts.judge({HOP: False}, now)

    def test_some_in_a_row(self):
        """One or two fruitless walks are bad luck; DOUBT_WALKS of them are not."""
        self.fail_walks(limits.DOUBT_WALKS - 1)
        self.assertEqual(frozenset(), self.doubts.doubted(0.0))
        self.fail_walks(1)
        self.assertEqual({HOP}, self.doubts.doubted(0.0))

    def test_an_offer_clears(self):
        """One walk that brought an offer ends all doubt, and the count begins anew."""
        self.fail_walks(limits.DOUBT_WALKS)
        self.doubts.judge({HOP: True, OTHER: True}, 0.0)
        self.assertEqual(0, len(self.doubts))
        self.fail_walks(limits.DOUBT_WALKS - 1)
        self.assertEqual(frozenset(), self.doubts.doubted(0.0))

    def test_doubt_ends(self):
        """After DOUBT_S it gets another chance, and needs as many failures again."""
        self.fail_walks(limits.DOUBT_WALKS)
        self.assertEqual({HOP}, self.doubts.doubted(limits.DOUBT_S - 1))
        self.assertEqual(frozenset(), self.doubts.doubted(limits.DOUBT_S))
        self.fail_walks(limits.DOUBT_WALKS - 1, now=limits.DOUBT_S)
        self.assertEqual(frozenset(), self.doubts.doubted(limits.DOUBT_S))

    def test_bound(self):
        """DOUBTS addresses are remembered, the longest unjudged forgotten first."""
        self.fail_walks(limits.DOUBT_WALKS)
        for number in range(limits.DOUBTS):
            self.assertIn(HOP, self.doubts.doubted(0.0))
            self.doubts.judge({Address("7.7.7.7", number): False}, 0.0)
        self.assertEqual(limits.DOUBTS, len(self.doubts))
        self.assertEqual(frozenset(), self.doubts.doubted(0.0))


class VerdictTests(TestCase):
    """What a lookup says about its first hops."""

    def setUp(self):
        """Two walks are under way."""
        self.lookup = Lookup(Topic(bytes(20)), b"q" * QUERY_BYTES, 0.0)
        neighbours = [Candidate(NodeID(bytes(20)), hop, 0.05, 5) for hop in (HOP, OTHER)]
        walks = self.lookup.advance(0.0, neighbours, 0.0, limits.SMALL_TABLE + 1)
        self.qids = {walk.address: walk.qid for walk in walks if isinstance(walk, Walk)}
        self.assertEqual({HOP, OTHER}, set(self.qids))

    def offer(self, through: Address, finder: str = "7.7.7.7") -> None:
        """Let an offer come for the walk through ``through``."""
        node_id = NodeID(b"f" * 20)
        offer = Offer(qid=self.qids[through], node_id=node_id, cookie=b"", swarm=1)
        self.lookup.offered(offer, Address(finder, 1))

    def test_who_brought_what(self):
        """An offer speaks for its walk's first hop, also a second one by the same finder."""
        self.offer(HOP)
        self.lookup.joined()
        verdict = {HOP: True, OTHER: False}
        self.assertEqual(verdict, self.lookup.verdict(limits.DOUBT_AFTER_S))
        self.offer(OTHER)
        self.assertEqual({HOP: True, OTHER: True}, self.lookup.verdict(limits.DOUBT_AFTER_S))

    def test_nobody_to_be_found(self):
        """Where no peer was found there may be none: nobody is to blame."""
        self.assertEqual({}, self.lookup.verdict(limits.LOOKUP_S))

    def test_too_early(self):
        """Walks may still be under way."""
        self.offer(HOP)
        self.lookup.joined()
        self.assertEqual({}, self.lookup.verdict(limits.DOUBT_AFTER_S / 2))

    def test_refusal_is_no_crime(self):
        """Who handed the walk back, or was silent, is not judged here."""
        self.offer(HOP)
        self.lookup.refused(OTHER)
        self.lookup.joined()
        self.assertEqual({HOP: True}, self.lookup.verdict(limits.DOUBT_AFTER_S))


class ManyLookupsTests(TestCase):
    """A node that looks up many things among black holes."""

    def test_black_holes_are_avoided(self):
        """It learns which neighbours they are, and walks go through others."""
        mix = Mix(nodes=400, dead=0.0, black_holes=0.25)
        study = Study(World(mix=mix, loss=0.0, initiators=1, seed=3))
        study.run(120)
        self.assertEqual(1.0, summarize(study.lookups).success)
        network = study.crowd.node(study.lookups[0].initiator)
        doubted = network.doubts.doubted(study.crowd.timeline.now)
        roles = [study.population.roles[study.crowd.number(address) or 0] for address in doubted]
        holes = sum(role is Role.BLACK_HOLE for role in roles)
        self.assertGreater(holes, 5)
        self.assertGreater(holes, 2 * (len(roles) - holes), "a few honest ones had bad luck")
        candidates = {candidate.address for candidate in network.walk_candidates()}
        self.assertEqual(set(), candidates & doubted)
        self.assertGreater(len(candidates), 50)

    def test_better_than_nobody(self):
        """A node all of whose neighbours are doubted still walks through them."""
        study = Study(World(mix=Mix(nodes=20, dead=0.0), loss=0.0))
        network = study.crowd.node(0)
        everybody = network.walk_candidates()
        for _ in range(limits.DOUBT_WALKS):
            network.doubts.judge({entry.address: False for entry in everybody}, 0.0)
        self.assertEqual(everybody, network.walk_candidates())
