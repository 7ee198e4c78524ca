"""One lookup and one iterative lookup: calls, timers and callbacks; and how many run at once."""

from __future__ import annotations

import attrs

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.errors import NodeStopped
from p2pdist.ids import ID_BYTES, HashKey, NodeID
from p2pdist.keys import topic_of
from p2pdist.overlay.agenda import SEARCHES_KEPT
from p2pdist.overlay.fields import NodeEntry
from p2pdist.overlay.messages import (
    Accept,
    Accepted,
    Find,
    Flag,
    Forwarded,
    Found,
    GetPeers,
    Offer,
    Ping,
    Status,
    Verdict,
)
from p2pdist.overlay.search import CONVERGENCE_CALL_S, Search, few_per_subnet
from p2pdist.test.network import Host
from p2pdist.test.overlayworld import KEY, OverlayNode, lan
from p2pdist.test.stranger import Stranger
from p2pdist.test.support import TestCase

TOPIC = topic_of(KEY)


def entry(number: int, host: str = "10.4.0.1") -> NodeEntry:
    """Return a node that does not exist."""
    return NodeEntry(NodeID(number.to_bytes(ID_BYTES, "big")), Address(host, 1000 + number))


def polite(host: Host, verdict: Verdict = Verdict.TAKEN, *, nodes=()) -> Stranger:
    """Return a node that answers walks with ``verdict`` and finds with ``nodes``."""
    stranger = Stranger(host)
    stranger.polite = True
    stranger.answers = {
        GetPeers: lambda m: Forwarded(
            rid=m.rid, attempt=m.attempt, verdict=verdict, units=0, token=b"t" * 8
        ),
        Find: lambda m: Found(rid=m.rid, attempt=m.attempt, nodes4=tuple(nodes)),
        Accept: lambda m: Accepted(rid=m.rid, attempt=m.attempt, token=b"t" * 8),
    }
    return stranger


class SearchCase(TestCase):
    """A node with one stranger as its neighbour."""

    def setUp(self) -> None:
        """Start both; searches are made by the test."""
        self.world, (a, self.b, self.c) = lan(count=3)
        self.node = OverlayNode.on(a)
        self.network = self.node.network
        self.candidates: list[Address] = []
        self.over: list[Search] = []

    def search(self, topic=TOPIC) -> Search:
        """Return a search that is not begun."""
        return Search(
            self.network,
            topic,
            me=lambda: (Status.LEECH, 7),
            candidate=self.candidates.append,
            ended=self.end,
        )

    def end(self, search: Search) -> None:
        """Record the end as a membership does."""
        self.over.append(search)
        self.network.agenda.ended(search)

    def meet(self, stranger: Stranger) -> None:
        """Make the stranger a neighbour."""
        self.world.wait_for(self.network.contact(stranger.address))

    def begin(self) -> Search:
        """Begin a search now."""
        search = self.search()
        self.network.agenda.begin(search)
        return search


class SearchTests(SearchCase):
    """One lookup."""

    def test_waits_for_the_first_neighbour(self) -> None:
        """Without neighbours nothing is sent; the first one is asked at once."""
        search = self.begin()
        self.world.run(3)
        self.assertEqual([], self.world.trace)
        stranger = polite(self.b)
        self.meet(stranger)
        self.world.run(0.01)
        (asked,) = stranger.heard(GetPeers)
        self.assertEqual((search.query, TOPIC), (asked.qid[:-1], asked.topic))
        self.assertIsNone(asked.src, "an initiator does not name its own address")
        self.assertEqual(Flag.PAIR, asked.flags, "the first walk, and no NAT")

    def test_fails_after_lookup_s(self) -> None:
        """A neighbour that takes queries and drops them is waited for until LOOKUP_S."""
        stranger = polite(self.b)
        self.meet(stranger)
        search = self.begin()
        took = self.world.run_until(lambda: self.over, timeout=20)
        self.assertEqual(limits.LOOKUP_S, round(took, 3))
        self.assertFalse(search.found)
        self.assertTrue(stranger.heard(Find), "the iterative lookup had its turn")

    def test_fails_early_when_everybody_said_no(self) -> None:
        """Nobody left to ask ends it right after the iterative lookup."""
        stranger = polite(self.b, Verdict.NO_ROUTE)
        routes: list[Address] = []
        self.network.no_route_from.append(routes.append)
        self.meet(stranger)
        self.begin()
        took = self.world.run_until(lambda: self.over, timeout=20)
        self.assertLess(took, limits.ITERATE_AFTER_S + 0.2)
        self.assertIn(stranger.address, routes)

    def test_late_refusal_is_heard(self) -> None:
        """A first hop that took the query may still say no, and the walk goes on elsewhere."""
        first, second = polite(self.b), polite(self.c)
        for number in range(3):
            polite(self.world.host(f"10.0.1.{number + 1}"))
        self.meet(first)
        self.begin()
        self.world.run(0.05)
        self.meet(second)
        (walk,) = first.heard(GetPeers)
        refusal = Forwarded(
            rid=walk.rid, attempt=0, verdict=Verdict.NO_ROUTE, units=3, token=b"t" * 8
        )
        first.send(self.node.address, refusal)
        took = self.world.run_until(lambda: second.heard(GetPeers), timeout=1)
        self.assertLess(took, limits.HEDGE_2_S[1])

    def test_silent_first_hop_is_passed_over(self) -> None:
        """A neighbour that died is no longer waited for."""
        stranger = polite(self.b)
        self.meet(stranger)
        self.b.crash()
        self.begin()
        took = self.world.run_until(lambda: self.over, timeout=20)
        self.assertLess(took, limits.LOOKUP_S)

    def test_offer_is_taken_and_the_longer_list_pulled(self) -> None:
        """Offered peers are candidates at once; the accept says what we do and brings more."""
        stranger = polite(self.b)
        more = (Address("10.0.0.20", 7667), Address("127.0.0.1", 7667))
        node = NodeEntry(NodeID(b"n" * 20), Address("10.0.0.30", 7667))
        stranger.answers[Accept] = lambda m: Accepted(
            rid=m.rid, attempt=m.attempt, token=b"t" * 8, peers4=more, nodes4=(node,)
        )
        self.meet(stranger)
        search = self.begin()
        offer = Offer(
            qid=search.query + b"\0",
            node_id=stranger.node_id,
            cookie=b"c" * 12,
            swarm=3,
            flags=Flag.MEMBER,
            peers4=(Address("10.0.0.10", 7667),),
        )
        heard: list[Address] = []
        self.network.offer_from.append(heard.append)
        stranger.send(self.node.address, offer)
        stranger.send(self.node.address, offer)
        self.world.run(0.1)
        hosts = [address.host for address in self.candidates]
        self.assertEqual(["10.0.0.2", "10.0.0.10", "10.0.0.20"], hosts)
        (accept,) = stranger.heard(Accept)
        self.assertEqual(
            (b"c" * 12, Status.LEECH, 7), (accept.cookie, accept.status, accept.sequence)
        )
        self.assertIn("10.0.0.30", {r.target[0] for r in self.world.trace})
        self.assertEqual({stranger.address}, set(heard))

    def test_offer_that_says_all_is_not_accepted(self) -> None:
        """A finder that named every peer it knows has no longer list: asking it would be noise."""
        stranger = polite(self.b)
        self.meet(stranger)
        search = self.begin()
        offer = Offer(
            qid=search.query + b"\0",
            node_id=stranger.node_id,
            cookie=b"c" * 12,
            swarm=2,
            flags=Flag.MEMBER,
            peers4=(Address("10.0.0.10", 7667),),
        )
        stranger.send(self.node.address, offer)
        self.world.run(1)
        self.assertEqual(["10.0.0.2", "10.0.0.10"], [peer.host for peer in self.candidates])
        self.assertEqual([], stranger.heard(Accept))

    def test_joined_ends_it(self) -> None:
        """A peer that joined ends the lookup; later offers still count."""
        stranger = polite(self.b)
        self.meet(stranger)
        search = self.begin()
        self.world.run(1)
        search.joined()
        self.assertEqual([search], self.over)
        self.assertTrue(search.found)
        search.joined()
        self.assertEqual([search], self.over)
        offer = Offer(
            qid=search.query + b"\1",
            node_id=stranger.node_id,
            cookie=b"",
            swarm=1,
            peers4=(Address("10.0.0.10", 7667),),
        )
        stranger.send(self.node.address, offer)
        self.world.run(0.1)
        self.assertEqual(1, len(self.candidates))

    def test_stop_tells_nobody(self) -> None:
        """A stopped search leaves no timer but those of calls under way, and does not end twice."""
        stranger = polite(self.b)
        self.meet(stranger)
        search = self.begin()
        self.world.run(0.6)
        search.stop()
        self.network.agenda.forget(search)
        self.world.run(20)
        self.assertEqual([], self.over)
        self.assertEqual(0, len(self.node.host.reactor.getDelayedCalls()))

    def test_out_of_calls_it_ends_cleanly(self) -> None:
        """When no call can be made, however many neighbours there are, the lookup just fails."""
        for number in range(200):
            fake = entry(number)
            self.network.neighbours.verified(
                NodeID(self.node.host.entropy(20)), fake.address, self.world.now
            )
        for number in range(limits.CALLS_OUTSTANDING):
            address = Address(f"10.6.{number // 200}.{number % 200 + 1}", 9)
            self.network.rpc.ping(address).addErrback(lambda _failure: None)
        self.begin()
        took = self.world.run_until(lambda: self.over, timeout=20)
        self.assertLess(took, limits.LOOKUP_S + 0.1)


class RelayedOfferTests(SearchCase):
    """Offers that say they come from somebody else."""

    def relayed(self, relay: Stranger, search: Search, finder: Address, cookie=b"") -> None:
        """Send an offer with ``finder`` written in."""
        offer = Offer(
            qid=search.query + b"\0",
            node_id=NodeID(b"f" * 20),
            cookie=cookie,
            swarm=2,
            flags=Flag.MEMBER,
            finder=finder,
        )
        relay.send(self.node.address, offer)
        self.world.run(0.2)

    def test_relayed_finder_is_pinged_first(self) -> None:
        """A finder that a relay named gets a ping and nothing larger, cookie or not."""
        relay, victim = polite(self.b), Stranger(self.c)
        self.meet(relay)
        search = self.begin()
        self.world.run(0.05)
        self.relayed(relay, search, victim.address, cookie=b"c" * 12)
        self.assertEqual([victim.address], self.candidates)
        self.world.run(5)
        self.assertEqual({Ping}, {type(message) for message, _ in victim.received})

    def test_forged_finder_is_pinged_first(self) -> None:
        """An offer with a forged source, by one who saw the query, draws a first contact only."""
        walker, victim = polite(self.b), Stranger(self.c)
        self.meet(walker)
        search = self.begin()
        self.world.run(0.05)
        offer = Offer(
            qid=search.query + b"\0", node_id=NodeID(b"f" * 20), cookie=b"c" * 12, swarm=1
        )
        walker.forge(victim.address, self.node.address, offer)
        self.world.run(15)
        self.assertEqual({Ping}, {type(message) for message, _ in victim.received})
        self.assertLessEqual(victim.bytes_received, limits.FIRST_CONTACT_TRIES * limits.PING_BYTES)

    def test_only_first_hops_relay(self) -> None:
        """Somebody else who knows the qid cannot name finders."""
        relay, other = polite(self.b), Stranger(self.c)
        self.meet(relay)
        search = self.begin()
        self.world.run(0.05)
        self.relayed(other, search, Address("10.0.0.9", 7667))
        self.assertEqual([], self.candidates)
        self.assertEqual(1, self.network.dropped["offer-relay"])

    def test_nobody_on_our_lan_is_named_from_outside(self) -> None:
        """A relay on a wider network cannot make us speak to narrower addresses."""
        relay = polite(self.b)
        self.meet(relay)
        search = self.begin()
        self.world.run(0.05)
        self.relayed(relay, search, Address("127.0.0.1", 22))
        self.assertEqual([], self.candidates)
        self.assertEqual(1, self.network.dropped["offer-relay"])


class AgendaTests(SearchCase):
    """Many contents in one process."""

    def many(self, count: int) -> list[Search]:
        """Begin searches for different topics."""
        searches = [
            self.search(topic_of(HashKey(number.to_bytes(32, "big")))) for number in range(count)
        ]
        for search in searches:
            self.network.agenda.begin(search)
        return searches

    def test_lookups_at_once_are_bounded(self) -> None:
        """LOOKUPS run, the rest waits; each has its full LOOKUP_S from when it runs."""
        self.many(limits.LOOKUPS + 4)
        self.world.run(limits.LOOKUP_S)
        self.assertEqual(limits.LOOKUPS, len(self.over))
        self.world.run(limits.LOOKUP_S - 1)
        self.assertEqual(limits.LOOKUPS, len(self.over))
        self.world.run(1)
        self.assertEqual(limits.LOOKUPS + 4, len(self.over))

    def test_waiting_searches_do_not_jump_the_queue(self) -> None:
        """A new neighbour sets running searches going, not those that wait."""
        searches = self.many(limits.LOOKUPS + 4)
        stranger = polite(self.b)
        self.meet(stranger)
        self.world.run(0.1)
        asked = [search.lookup.asked for search in searches]
        self.assertEqual([1] * limits.LOOKUPS + [0] * 4, asked)

    def test_forgotten_searches_free_their_place(self) -> None:
        """A content that goes away while it searches, or waits to, blocks nobody."""
        for _ in range(3 * limits.LOOKUPS):
            search = self.search()
            self.network.agenda.begin(search)
            search.stop()
            self.network.agenda.forget(search)
        waiting = [self.search() for _ in range(limits.LOOKUPS + 1)]
        for search in waiting:
            self.network.agenda.begin(search)
        self.network.agenda.forget(waiting[-1])
        self.world.run(limits.LOOKUP_S + 1)
        self.assertEqual(limits.LOOKUPS, len(self.over))

    def test_searches_that_end_as_they_start(self) -> None:
        """Any number of waiting searches whose peers came meanwhile end one after the other."""
        for search in self.many(limits.LOOKUPS + 500)[limits.LOOKUPS :]:
            search.joined()
        self.world.run(limits.LOOKUP_S)
        self.assertEqual(limits.LOOKUPS + 500, len(self.over))

    def test_kept_searches_are_bounded(self) -> None:
        """Searches nobody forgets do not pile up."""
        first = self.begin()
        for _ in range(SEARCHES_KEPT):
            self.network.agenda.begin(attrs.evolve(first))
        self.assertIsNone(self.network.agenda.get(first.query))
        self.assertEqual(SEARCHES_KEPT, len(list(self.network.agenda)))
        self.network.agenda.stop()
        self.network.agenda.ended(first)
        self.assertEqual(0, len(self.node.host.reactor.getDelayedCalls()))


class ConvergenceTests(SearchCase):
    """The iterative lookup."""

    def test_finds_the_nearest_that_answer(self) -> None:
        """Nodes named on the way are asked too; those that answer are the result."""
        far = polite(self.c)
        near = polite(self.b, nodes=[NodeEntry(far.node_id, far.address)])
        self.meet(near)
        found = self.world.wait_for(self.network.converge(TOPIC, limits.STORERS))
        self.assertEqual({near.address, far.address}, {node.address for node in found})

    def test_alone_it_finds_nobody(self) -> None:
        """Without neighbours it is over at once."""
        self.assertEqual([], self.result_of(self.network.converge(TOPIC, 8)))

    def test_made_up_nodes_are_asked_little(self) -> None:
        """A liar's victims get pings only, one per global host, two per subnet, and once."""
        lies = [
            NodeEntry(NodeID(TOPIC[:-1] + bytes([number])), Address(host, 7000 + number))
            for number, host in enumerate(["8.8.8.8", "8.8.8.8", "8.8.8.9", "8.8.8.10", "9.9.9.9"])
        ]
        liar = polite(self.b, nodes=lies)
        self.meet(liar)
        self.world.wait_for(self.network.converge(TOPIC, limits.STORERS))
        self.world.run(CONVERGENCE_CALL_S)
        sent = [r for r in self.world.trace if r.target[0][0] in "89"]
        self.assertEqual({"8.8.8.8", "8.8.8.9", "9.9.9.9"}, {r.target[0] for r in sent})
        self.assertEqual({limits.PING_BYTES}, {r.length for r in sent})
        self.assertEqual(3 * limits.FIRST_CONTACT_TRIES, len(sent))
        for _ in range(3):
            self.world.wait_for(self.network.converge(TOPIC, limits.STORERS))
            self.world.run(CONVERGENCE_CALL_S)
        targets = [r.target for r in self.world.trace if r.target[0][0] in "89"]
        self.assertEqual({limits.FIRST_CONTACT_TRIES}, {targets.count(to) for to in targets})

    def test_narrower_nodes_are_not_believed(self) -> None:
        """A node on a wider network names nobody on a narrower one."""
        liar = polite(self.b, nodes=[entry(1, "127.0.0.1")])
        self.meet(liar)
        self.world.wait_for(self.network.converge(TOPIC, 8))
        self.assertNotIn("127.0.0.1", {r.target[0] for r in self.world.trace})

    def test_stop_fails_it(self) -> None:
        """Stopping the network fails a lookup under way, once."""
        self.meet(polite(self.b))
        self.b.crash()
        waiting = self.network.converge(TOPIC, 8)
        self.world.run(0.01)
        self.node.stop()
        self.error_of(waiting, NodeStopped)
        self.node.stop()
        self.world.run(5)
        self.assertEqual(0, len(self.node.host.reactor.getDelayedCalls()))

    def test_told_nodes_are_met_while_the_table_is_small(self) -> None:
        """Up to SMALL_TABLE neighbours, nodes named by a finder are contacted."""
        told = (entry(1), NodeEntry(self.network.node_id, Address("10.0.0.9", 1)))
        self.network.nodes_told(told)
        self.assertEqual(1, len(self.world.trace))
        for number in range(2, limits.SMALL_TABLE + 40):
            node_id = NodeID(self.node.host.entropy(20))
            self.network.neighbours.verified(node_id, entry(number).address, self.world.now)
        self.assertGreater(len(self.network.neighbours), limits.SMALL_TABLE)
        self.network.nodes_told((entry(1000, "10.0.0.8"),))
        self.assertEqual(1, len(self.world.trace))

    def test_known_nodes_are_not_counted_against_their_subnet(self) -> None:
        """Who is our neighbour already costs no ping."""
        many = [entry(number, f"8.8.8.{number}") for number in range(1, 9)]
        self.assertEqual(many, few_per_subnet(many, lambda _address: False))
        few = few_per_subnet(many, lambda _address: True)
        self.assertEqual(limits.SUBNET_PER_BUCKET, len(few))
