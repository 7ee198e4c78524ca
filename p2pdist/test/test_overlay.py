"""One network's behaviour towards others, message by message, and a swarm's membership."""

from __future__ import annotations

from typing import Any

import attrs

from p2pdist import limits
from p2pdist.addresses import Address
from p2pdist.ids import HashKey, NodeID, Topic
from p2pdist.keys import join_proof, topic_of
from p2pdist.overlay.carry import LATE_REFUSAL_S
from p2pdist.overlay.membership import JoinedPeer
from p2pdist.overlay.messages import (
    Accept,
    Accepted,
    Announce,
    Announced,
    Challenge,
    Error,
    ErrorCode,
    Find,
    Flag,
    Forwarded,
    Found,
    GetPeers,
    Hail,
    Join,
    Joined,
    Noted,
    Offer,
    Ping,
    Pong,
    Status,
    StatusUpdate,
    Verdict,
)
from p2pdist.overlay.network import OWN_ADDRESSES
from p2pdist.overlay.wire import encode
from p2pdist.test.network import World
from p2pdist.test.overlayworld import KEY, OverlayNode, lan
from p2pdist.test.stranger import Stranger
from p2pdist.test.support import TestCase

TOPIC = topic_of(KEY)


class StrangerCase(TestCase):
    """One node at 10.0.0.1 and one stranger at 10.0.0.2."""

    def setUp(self) -> None:
        """Start both."""
        self.world, (a, b, c) = lan(count=3)
        self.node = OverlayNode.on(a)
        self.stranger = Stranger(b)
        self.other = Stranger(c)
        self.token = self.stranger.token(self.node.address)

    def ask(self, request, **changed):
        """Ask the node as the stranger with its token."""
        return self.stranger.ask(self.node.address, request, **{"token": self.token, **changed})

    def announce(self, topic=TOPIC, status=Status.SEED, sequence=1) -> Announce:
        """Return an announce."""
        return Announce(
            node_id=self.stranger.node_id, topic=topic, status=status, sequence=sequence
        )

    def entries(self):
        """Return (address, status) of the peers of the topic the node knows."""
        return [(e.address, e.status) for e in self.node.network.peers.entries(TOPIC)]


class ProofTests(StrangerCase):
    """Who may ask what."""

    def test_pong_carries_token_and_observed_address(self) -> None:
        """Anybody's ping is answered, with nothing larger than itself."""
        size = self.stranger.send(self.node.address, Ping(node_id=self.stranger.node_id))
        self.world.run(1)
        pong = self.stranger.heard(Pong)[-1]
        self.assertEqual(self.stranger.address, pong.observed)
        self.assertEqual(limits.TOKEN_BYTES, len(pong.token))
        sent = [r.length for r in self.world.trace if r.source == self.node.address]
        self.assertEqual(limits.PING_BYTES, size)
        self.assertTrue(all(length <= size for length in sent))

    def test_request_without_token_is_challenged(self) -> None:
        """Every request without a token gets a smaller challenge and changes nothing."""
        own = self.stranger.node_id
        requests = [
            Find(node_id=own, target=TOPIC),
            GetPeers(node_id=own, qid=self.stranger.qid(), topic=TOPIC),
            Accept(
                node_id=own, qid=bytes(12), cookie=b"", topic=TOPIC, status=Status.SEED, sequence=1
            ),
            self.announce(),
            Join(node_id=own, topic=TOPIC, proof=bytes(16)),
            StatusUpdate(node_id=own, topic=TOPIC, status=Status.SEED, sequence=1),
        ]
        for request in requests:
            self.world.run(2)
            before = len(self.world.trace)
            reply = self.stranger.ask(self.node.address, request)
            self.assertIsInstance(reply, Challenge, type(request).__name__)
            self.assertEqual(self.token, reply.token)
            asked, answered = (record.length for record in self.world.trace[before:])
            self.assertLessEqual(answered, asked)
        self.assertEqual([], self.entries())
        self.assertEqual(0, len(self.node.network.neighbours))

    def test_challenges_are_rationed(self) -> None:
        """One address gets RATE_CHALLENGE challenges, then silence."""
        for _ in range(50):
            self.stranger.send(self.node.address, self.announce())
        self.world.run(0.1)
        self.assertEqual(int(limits.RATE_CHALLENGE[1]), len(self.stranger.heard(Challenge)))

    def test_all_challenges_together_are_rationed(self) -> None:
        """Forged sources cannot draw more than RATE_CHALLENGE_ALL challenges out of a node."""
        before = len(self.world.trace)
        for number in range(400):
            source = Address(f"10.9.{number // 200}.{number % 200 + 1}", 7667)
            self.stranger.forge(source, self.node.address, self.announce())
        self.world.run(0.05)
        sent = [r for r in self.world.trace[before:] if r.source == self.node.address]
        self.assertLessEqual(len(sent), limits.RATE_CHALLENGE_ALL[1] + 10)
        self.assertGreaterEqual(len(sent), limits.RATE_CHALLENGE_ALL[1])

    def test_pings_are_rationed(self) -> None:
        """More pings than RATE_PING from one address are dropped and counted."""
        for _ in range(60):
            self.stranger.send(self.node.address, Ping(node_id=self.stranger.node_id))
        self.world.run(0.1)
        self.assertLessEqual(len(self.stranger.heard(Pong)), limits.RATE_PING[1] + 3)
        self.assertGreater(self.node.network.dropped["ping-rate"], 10)

    def test_requests_are_rationed(self) -> None:
        """More proved requests than RATE_REQUEST from one address are dropped and counted."""
        for number in range(260):
            find = Find(
                node_id=self.stranger.node_id,
                target=TOPIC,
                rid=number.to_bytes(8, "big"),
                token=self.token,
            )
            self.stranger.send(self.node.address, find)
        self.world.run(0.1)
        self.assertLessEqual(len(self.stranger.heard(Found)), limits.RATE_REQUEST[1] + 10)
        self.assertGreater(self.node.network.dropped["request-rate"], 0)

    def test_token_is_bound_to_its_address(self) -> None:
        """Another node's token proves nothing."""
        reply = self.other.ask(self.node.address, self.announce(), token=self.token)
        self.assertIsInstance(reply, Challenge)

    def test_proved_request_makes_a_neighbour(self) -> None:
        """No ping goes back: a valid token is proof enough."""
        self.ask(Find(node_id=self.stranger.node_id, target=TOPIC))
        entry = self.node.network.neighbours.get(self.stranger.address)
        assert entry is not None
        self.assertEqual(self.stranger.node_id, entry.node_id)
        self.assertEqual([], self.stranger.heard(Ping))

    def test_unasked_pong_teaches_nothing(self) -> None:
        """A stranger's pong cannot make a node take the address of a peer for its own."""
        victim = Address("10.0.0.9", 7667)
        pong = Pong(
            rid=bytes(8), attempt=0, node_id=self.stranger.node_id, token=bytes(8), observed=victim
        )
        self.stranger.send(self.node.address, pong)
        self.world.run(1)
        self.assertTrue(self.node.network.approachable(victim))
        self.assertEqual(1, self.node.network.rpc.mismatched)

    def test_messages_out_of_place_are_ignored(self) -> None:
        """A multicast hail or an offer for no query, sent to the node's own port, does nothing."""
        before = len(self.world.trace)
        self.stranger.send(self.node.address, Hail(port=1, topics=()))
        self.stranger.send(
            self.node.address,
            Offer(qid=bytes(12), node_id=self.stranger.node_id, cookie=b"", swarm=0),
        )
        self.world.run(1)
        self.assertEqual(before + 2, len(self.world.trace))

    def test_own_addresses_are_learned_from_own_datagrams_and_bounded(self) -> None:
        """A ping that comes back to its sender names an address of its own."""
        network = self.node.network
        for number in range(OWN_ADDRESSES + 4):
            address = Address(f"127.0.0.{number + 1}", limits.DEFAULT_PORT)
            network.contact(address).addErrback(lambda _failure: None)
            self.world.run(0.2)
            self.assertFalse(network.approachable(address))
        self.assertEqual(OWN_ADDRESSES, len(network.own_addresses))


class RequestTests(StrangerCase):
    """What a proved request brings."""

    def test_find_names_verified_nodes_only(self) -> None:
        """A find is answered with neighbours, never with the asker."""
        self.other.befriend(self.node.address)
        found = self.ask(Find(node_id=self.stranger.node_id, target=TOPIC))
        self.assertEqual([self.other.address], [n.address for n in found.nodes4])
        self.assertEqual((), found.nodes6)

    def test_announce_is_stored_and_counts_others(self) -> None:
        """The reply says for how long, and how many others there are but the announcer."""
        reply = self.ask(self.announce())
        self.assertEqual((limits.PEER_TTL_S, 0), (reply.ttl_s, reply.others))
        self.node.network.peers.put(
            TOPIC, self.other.node_id, self.other.address, Status.SEED, 0, self.world.now
        )
        self.assertEqual(1, self.ask(self.announce(sequence=2)).others)
        self.node.join(Status.SEED)
        self.assertEqual(2, self.ask(self.announce(sequence=3)).others)

    def test_announce_of_left_takes_it_back(self) -> None:
        """Status LEFT removes the entry."""
        self.ask(self.announce())
        self.assertEqual([(self.stranger.address, Status.SEED)], self.entries())
        self.assertIsInstance(self.ask(self.announce(status=Status.LEFT, sequence=2)), Announced)
        self.assertEqual([], self.entries())

    def test_too_many_topics_are_refused(self) -> None:
        """An address registers RATE_ANNOUNCE topics, then gets an error; refreshes are free."""
        self.world.run(60)
        replies = [
            self.ask(self.announce(topic=Topic(number.to_bytes(20, "big")))) for number in range(40)
        ]
        refused = [reply for reply in replies if isinstance(reply, Error)]
        self.assertEqual({int(ErrorCode.RATE)}, {reply.error for reply in refused})
        self.assertEqual(40 - limits.RATE_ANNOUNCE[1] - 3, len(refused))
        self.assertIsInstance(replies[0], Announced)
        again = self.ask(self.announce(topic=Topic(bytes(20)), sequence=9))
        self.assertIsInstance(again, Announced)

    def test_retried_request_gets_the_same_reply(self) -> None:
        """A second try with the same rid is answered from memory, numbered as the try."""
        request = attrs.evolve(self.announce(), rid=b"12345678", token=self.token)
        self.stranger.send(self.node.address, request)
        self.stranger.send(self.node.address, attrs.evolve(request, attempt=1, sequence=9))
        self.world.run(1)
        self.assertEqual([0, 1], [reply.attempt for reply in self.stranger.heard(Announced)])
        self.assertEqual([1], [e.sequence for e in self.node.network.peers.entries(TOPIC)])

    def test_cookie_stands_for_a_token(self) -> None:
        """Who takes an offer with its cookie is announced and gets the longer list."""
        self.node.network.peers.put(
            TOPIC, self.other.node_id, self.other.address, Status.SEED, 0, self.world.now
        )
        qid = self.stranger.qid()
        self.ask(GetPeers(node_id=self.stranger.node_id, qid=qid, topic=TOPIC))
        (offer, *_) = self.stranger.heard(Offer)
        accept = Accept(
            node_id=self.stranger.node_id,
            qid=qid,
            cookie=offer.cookie,
            topic=TOPIC,
            status=Status.LEECH,
            sequence=1,
        )
        reply = self.stranger.ask(self.node.address, accept)
        self.assertIsInstance(reply, Accepted)
        self.assertEqual((self.other.address,), reply.peers4)
        self.assertIn((self.stranger.address, Status.LEECH), self.entries())
        bad = attrs.evolve(accept, cookie=bytes(limits.COOKIE_BYTES))
        self.assertIsInstance(self.stranger.ask(self.node.address, bad), Challenge)

    def test_offer_is_repeated_until_taken(self) -> None:
        """Where few others would offer, one goes out again, once, after OFFER_REPEAT_S."""
        self.node.join(Status.SEED)
        ask = GetPeers(node_id=self.stranger.node_id, qid=self.stranger.qid(), topic=TOPIC)
        self.ask(ask)
        self.assertEqual(2, len(self.stranger.heard(Offer)))
        size = limits.ENVELOPE_BYTES + len(encode(self.stranger.heard(Offer)[0]))
        first, second = (
            r.time for r in self.world.trace if r.source == self.node.address and r.length == size
        )
        self.assertLess(abs(second - first - limits.OFFER_REPEAT_S), 0.01)

    def test_offer_is_not_repeated_in_a_large_network(self) -> None:
        """Other walks bring other offers there."""
        self.node.join(Status.SEED)
        network = self.node.network
        for number in range(256):
            node_id = NodeID(bytes([number]) * 20)
            network.neighbours.verified(node_id, Address(f"10.3.0.{number}", 7667), 0.0)
        self.assertGreater(network.table_size(), limits.SMALL_TABLE)
        self.ask(GetPeers(node_id=self.stranger.node_id, qid=self.stranger.qid(), topic=TOPIC))
        self.assertEqual(1, len(self.stranger.heard(Offer)))

    def test_offer_that_was_taken_is_not_repeated(self) -> None:
        """An accept stops the repetition."""
        self.node.join(Status.SEED)
        qid = self.stranger.qid()
        self.stranger.send(
            self.node.address,
            GetPeers(node_id=self.stranger.node_id, qid=qid, topic=TOPIC, token=self.token),
        )
        self.world.run(0.1)
        self.ask(
            Accept(
                node_id=self.stranger.node_id,
                qid=qid,
                cookie=b"",
                topic=TOPIC,
                status=Status.IDLE,
                sequence=0,
            )
        )
        self.assertEqual(1, len(self.stranger.heard(Offer)))

    def test_status_of_an_unknown_peer_is_refused(self) -> None:
        """Only who joined or announced may tell a status."""
        update = StatusUpdate(
            node_id=self.stranger.node_id, topic=TOPIC, status=Status.SEED, sequence=1
        )
        self.assertEqual(ErrorCode.NOT_A_PEER, self.ask(update).error)
        self.ask(self.announce(status=Status.LEECH))
        wrong = attrs.evolve(update, node_id=self.other.node_id)
        self.assertEqual(ErrorCode.NOT_A_PEER, self.ask(wrong).error)
        self.assertIsInstance(self.ask(update), Noted)
        self.assertEqual([(self.stranger.address, Status.SEED)], self.entries())


class JoinTests(StrangerCase):
    """The door of a swarm."""

    def setUp(self) -> None:
        """Make the node a member."""
        super().setUp()
        self.membership, self.seen = self.node.join(Status.SEED)
        self.stranger.polite = True

    def knock(self, stranger=None, key=KEY, token=None, node_id=None, **changed):
        """Join as a stranger who knows ``key``; return the reply."""
        stranger = stranger or self.stranger
        token = stranger.token(self.node.address) if token is None else token
        rid = stranger.host.entropy(8)
        own = node_id or stranger.node_id
        proof = join_proof(key, b"join", rid, token, own, self.node.node.key.node_id)
        join = Join(node_id=own, rid=rid, token=token, topic=TOPIC, proof=proof)
        stranger.send(self.node.address, attrs.evolve(join, **changed))
        self.world.run(0.5)
        rid = changed.get("rid", rid)
        return next((m for m, _ in stranger.received if getattr(m, "rid", None) == rid), None)

    def test_join_is_mutual(self) -> None:
        """Who proves the key is joined, and gets a proof in return."""
        reply = self.knock()
        self.assertIsInstance(reply, Joined)
        self.assertEqual([("joined", "10.0.0.2", False)], self.seen.events)
        expected = join_proof(
            KEY, b"joined", reply.rid, self.token, reply.node_id, self.stranger.node_id
        )
        self.assertEqual((expected, Status.SEED), (reply.proof, reply.status))

    def test_tampered_joins_are_refused(self) -> None:
        """A wrong key, id, rid or proof, one at a time, does not join."""
        tampered: list[dict[str, Any]] = [
            {"key": HashKey(b"x" * 32)},
            {"proof": bytes(16)},
            {"rid": b"other id"},
            {"node_id": self.node.node.key.node_id},
        ]
        for change in tampered:
            reply = self.knock(**change)
            self.assertEqual(ErrorCode.BAD_PROOF, reply.error, change)
        self.assertEqual([], self.seen.events)

    def test_unknown_topic_is_refused(self) -> None:
        """A node that has no such content says so."""
        reply = self.knock(topic=Topic(bytes(20)))
        self.assertEqual(ErrorCode.NOT_A_PEER, reply.error)

    def test_status_and_farewell_reach_the_member(self) -> None:
        """A joined peer's status is kept; an older one changes nothing; LEFT ends it."""
        self.knock()
        peer = self.membership.joined[self.stranger.node_id]
        update = StatusUpdate(
            node_id=self.stranger.node_id, topic=TOPIC, status=Status.SEED, sequence=7
        )
        self.ask(update)
        self.assertEqual(Status.SEED, peer.status)
        self.ask(attrs.evolve(update, status=Status.LEECH, sequence=6))
        self.assertEqual(Status.SEED, peer.status)
        self.ask(attrs.evolve(update, status=Status.LEFT, sequence=8))
        self.assertEqual(("left", "10.0.0.2", False), self.seen.events[-1])
        self.assertEqual([], self.entries())

    def test_peer_that_knows_us_no_more_is_dropped(self) -> None:
        """Its farewell was lost; our next status is refused, and it is a peer no longer."""
        self.knock()
        self.stranger.polite = False
        self.stranger.answers[StatusUpdate] = lambda m: Error(
            rid=m.rid, attempt=m.attempt, error=ErrorCode.RATE
        )
        self.membership.set_status(Status.LEECH)
        self.world.run(1)
        self.assertEqual(1, len(self.membership.joined))
        self.stranger.answers[StatusUpdate] = lambda m: Error(
            rid=m.rid, attempt=m.attempt, error=ErrorCode.NOT_A_PEER
        )
        self.membership.set_status(Status.SEED)
        self.world.run(1)
        self.assertEqual({}, self.membership.joined)
        self.assertEqual([], self.entries())

    def test_status_of_another_is_not_taken(self) -> None:
        """A status from elsewhere, or of somebody who only announced, moves no joined peer."""
        self.knock()
        self.ask(self.announce(sequence=1))
        token = self.other.token(self.node.address)
        update = StatusUpdate(
            node_id=self.stranger.node_id, topic=TOPIC, status=Status.LEFT, sequence=9
        )
        announced = Announce(
            node_id=self.stranger.node_id, topic=TOPIC, status=Status.SEED, sequence=1
        )
        self.other.ask(self.node.address, announced, token=token)
        self.other.ask(self.node.address, update, token=token)
        self.assertIn(self.stranger.node_id, self.membership.joined)
        stranger = NodeID(b"n" * 20)
        self.other.ask(self.node.address, attrs.evolve(announced, node_id=stranger), token=token)
        self.other.ask(self.node.address, attrs.evolve(update, node_id=stranger), token=token)
        self.assertEqual(1, len(self.membership.joined))

    def test_new_life_with_a_lower_sequence_is_believed(self) -> None:
        """A peer that crashed and joins again may count from lower numbers (clock set back)."""
        self.knock()
        update = StatusUpdate(
            node_id=self.stranger.node_id, topic=TOPIC, status=Status.SEED, sequence=1000
        )
        self.ask(update)
        self.knock()
        self.assertIn(self.stranger.node_id, self.membership.joined)
        self.ask(attrs.evolve(update, status=Status.LEECH, sequence=5))
        self.assertEqual(Status.LEECH, self.membership.joined[self.stranger.node_id].status)
        self.assertEqual([(self.stranger.address, Status.LEECH)], self.entries())

    def test_new_key_at_an_address_replaces_the_old(self) -> None:
        """A machine that comes back with another node key leaves no ghost behind."""
        self.knock()
        self.knock(node_id=NodeID(b"n" * 20))
        self.assertEqual([NodeID(b"n" * 20)], list(self.membership.joined))
        self.assertIn(("left", "10.0.0.2", False), self.seen.events)

    def test_borrowed_node_id_displaces_nobody(self) -> None:
        """A joined node keeps its place as long as it answers there."""
        self.knock()
        reply = self.knock(self.other, node_id=self.stranger.node_id)
        self.assertEqual(ErrorCode.FULL, reply.error)
        self.assertTrue(self.stranger.heard(Ping))
        self.world.run(5)
        self.assertEqual(
            self.stranger.address, self.membership.joined[self.stranger.node_id].address
        )

    def test_moved_node_gets_its_place(self) -> None:
        """A joined node that answers no more where it was may join from elsewhere."""
        self.knock()
        self.stranger.host.crash()
        self.knock(self.other, node_id=self.stranger.node_id)
        self.world.run(5)
        self.assertIsInstance(self.knock(self.other, node_id=self.stranger.node_id), Joined)
        self.assertEqual(self.other.address, self.membership.joined[self.stranger.node_id].address)

    def test_door_is_closed_at_status_peers(self) -> None:
        """With STATUS_PEERS joined the next is refused; one that is joined may come again."""
        for number in range(limits.STATUS_PEERS):
            peer = JoinedPeer(
                NodeID(number.to_bytes(20, "big")), Address("10.1.0.1", 1000 + number), Status.SEED
            )
            self.membership.joined[peer.node_id] = peer
        self.assertEqual(ErrorCode.FULL, self.knock().error)
        del self.membership.joined[NodeID(bytes(20))]
        self.assertIsInstance(self.knock(), Joined)
        self.assertIsInstance(self.knock(), Joined)

    def test_one_global_host_has_few_places(self) -> None:
        """PORTS_PER_HOST node ids may join from one global address, however many it makes up."""
        world = World(1)
        node = OverlayNode.on(world.host("93.184.216.34"))
        membership, _ = node.join(Status.SEED)
        far = world.host("8.8.8.8")
        replies = []
        self.node, self.world = node, world
        for number in range(limits.PORTS_PER_HOST + 2):
            knocking = Stranger(far, port=9000 + number)
            knocking.polite = True
            replies.append(self.knock(knocking))
        self.assertEqual(limits.PORTS_PER_HOST, len(membership.joined))
        self.assertIsInstance(replies[-1], Error)

    def test_guest_without_the_key_is_not_joined(self) -> None:
        """A peer that answers a join with a false proof is no peer."""
        self.membership.candidate(self.stranger.address)
        self.world.run(0.05)
        join = self.stranger.heard(Join)[0]
        false = Joined(
            rid=join.rid,
            attempt=0,
            node_id=self.stranger.node_id,
            status=Status.SEED,
            proof=bytes(16),
        )
        self.stranger.send(self.node.address, false)
        self.world.run(1)
        self.assertEqual({}, self.membership.joined)


class CarrierTests(StrangerCase):
    """Other nodes' queries, offers and refusals."""

    def query(self, **fields) -> GetPeers:
        """Return a get_peers of the stranger."""
        made = {"qid": self.stranger.qid(), "topic": TOPIC, **fields}
        return GetPeers(node_id=self.stranger.node_id, token=self.token, **made)

    def test_query_without_anybody_to_ask_is_handed_back(self) -> None:
        """No peers and no neighbours: no route, and every unit comes back."""
        reply = self.ask(self.query())
        self.assertEqual((Verdict.NO_ROUTE, limits.GET_PEERS_UNITS), (reply.verdict, reply.units))

    def test_repeated_query_is_suppressed(self) -> None:
        """The same qid again, from anybody, is taken and dropped for QUERY_CACHE_S."""
        query = self.query()
        self.ask(query)
        self.assertEqual(Verdict.TAKEN, self.ask(query).verdict)
        self.world.run(limits.QUERY_CACHE_S)
        self.assertEqual(Verdict.NO_ROUTE, self.ask(query).verdict)

    def test_query_of_our_own_comes_round(self) -> None:
        """A node does not answer its own question, and says so at once."""
        membership, _ = self.node.join(Status.LEECH)
        query = next(iter(self.node.network.agenda)).query
        reply = self.ask(self.query(qid=query + b"\0", hops=1, src=self.other.address))
        self.assertEqual((Verdict.NO_ROUTE, 3), (reply.verdict, reply.units))
        self.assertEqual([], self.other.heard(Offer))
        self.assertFalse(membership.joined)

    def test_query_in_the_name_of_our_address_is_dropped(self) -> None:
        """An origin that is our own address is nonsense: no reply."""
        self.node.network.own_addresses[self.node.address] = None
        reply = self.ask(self.query(hops=2, src=self.node.address))
        self.assertIsNone(reply)
        self.assertIsNone(self.ask(self.query(hops=1)), "and so is one without any")

    def test_first_hop_is_rationed(self) -> None:
        """An initiator has RATE_FIRST_HOP queries carried; further ones are told to wait."""
        for _ in range(30):
            self.stranger.send(
                self.node.address, attrs.evolve(self.query(), rid=self.stranger.host.entropy(8))
            )
        self.world.run(0.1)
        heard = self.stranger.heard(Forwarded)
        busy = [reply for reply in heard if reply.verdict is Verdict.BUSY]
        self.assertEqual(30 - int(limits.RATE_FIRST_HOP[1]), len(busy))
        self.assertEqual(30, len(heard))

    def test_forwards_are_rationed(self) -> None:
        """RATE_SOURCE queries are taken for one origin, RATE_FORWARD from one neighbour."""
        victim = Address("10.0.0.77", 7667)
        for number in range(14):
            rid = number.to_bytes(8, "big")
            self.stranger.send(self.node.address, self.query(rid=rid, hops=3, src=victim))
        self.world.run(0.1)
        busy = [r for r in self.stranger.heard(Forwarded) if r.verdict is Verdict.BUSY]
        self.assertEqual(14 - int(limits.RATE_SOURCE[1]), len(busy))
        for number in range(100, 230):
            rid = number.to_bytes(8, "big")
            source = Address("10.0.1.1", number)
            self.stranger.send(self.node.address, self.query(rid=rid, hops=3, src=source))
        self.world.run(0.1)
        taken = [r for r in self.stranger.heard(Forwarded) if r.verdict is not Verdict.BUSY]
        self.assertLessEqual(len(taken), limits.RATE_FORWARD[1] + 6)

    def test_bytes_for_others_are_rationed(self) -> None:
        """A node sends at most RATE_RELAY_BYTES for others: then queries are handed back."""
        self.other.befriend(self.node.address)
        now = self.world.now
        self.assertTrue(self.node.network.guard.relay(int(limits.RATE_RELAY_BYTES[1]), now))
        reply = self.ask(self.query(), token=self.token)
        self.assertEqual(Verdict.NO_ROUTE, reply.verdict)
        self.node.join(Status.SEED)
        self.node.network.guard.relay(int(limits.RATE_RELAY_BYTES[1] / 2), self.world.now)
        self.node.network.guard.relay(int(limits.RATE_RELAY_BYTES[0] / 2), self.world.now)
        before = len(self.stranger.heard(Offer))
        self.stranger.send(self.node.address, self.query(rid=b"aaaaaaaa"))
        self.world.run(0.01)
        self.assertEqual(before, len(self.stranger.heard(Offer)))

    def test_query_without_a_way_spends_nothing(self) -> None:
        """What could not be passed on leaves the ration for others as it was."""
        self.stranger.send(self.node.address, self.query(rid=b"no way.."))
        self.world.run_until(lambda: self.stranger.heard(Forwarded))
        self.assertEqual(Verdict.NO_ROUTE, self.stranger.heard(Forwarded)[0].verdict)
        burst = int(limits.RATE_RELAY_BYTES[1])
        self.assertTrue(self.node.network.guard.relay(burst, self.world.now))

    def take(self, verdict: Verdict, units: int, query: GetPeers) -> None:
        """Answer a forwarded query as the other stranger."""
        reply = Forwarded(
            rid=query.rid, attempt=query.attempt, verdict=verdict, units=units, token=b"t" * 8
        )
        self.other.send(self.node.address, reply)
        self.world.run(0.01)

    def pass_on(self, **fields) -> GetPeers:
        """Let the node pass a query on to the other stranger; return what arrives there."""
        self.other.befriend(self.node.address)
        self.stranger.send(self.node.address, self.query(rid=b"upstream", **fields))
        self.other.polite = True
        self.world.run(0.02)
        return self.other.heard(GetPeers)[0]

    def test_copy_comes_back_once(self) -> None:
        """A next hop that refuses again and again cannot multiply reply units."""
        copy = self.pass_on(wide=True, units=limits.GET_PEERS_WIDE_UNITS)
        self.assertEqual(self.stranger.address, copy.src)
        self.assertEqual((1, 3), (copy.hops, copy.units))
        self.take(Verdict.TAKEN, 0, copy)
        for _ in range(4):
            self.take(Verdict.NO_ROUTE, 5, copy)
        refusals = [r for r in self.stranger.heard(Forwarded) if r.verdict is Verdict.NO_ROUTE]
        self.assertEqual([limits.GET_PEERS_WIDE_UNITS], [r.units for r in refusals])

    def test_late_refusal_counts_for_a_while(self) -> None:
        """A next hop may hand a query back until LATE_REFUSAL_S after it took it."""
        copy = self.pass_on()
        self.take(Verdict.TAKEN, 0, copy)
        self.world.run(LATE_REFUSAL_S)
        self.take(Verdict.NO_ROUTE, 2, copy)
        refusals = [r for r in self.stranger.heard(Forwarded) if r.verdict is Verdict.NO_ROUTE]
        self.assertEqual([], refusals)

    def test_silent_next_hop_costs_its_units(self) -> None:
        """After a timeout the query goes on with what is left, or is handed back with that."""
        self.pass_on()
        self.world.run(10)
        refusals = [r for r in self.stranger.heard(Forwarded) if r.verdict is Verdict.NO_ROUTE]
        self.assertEqual([1], [r.units for r in refusals])

    def pass_on_to_two(self) -> tuple[Stranger, GetPeers]:
        """Let the node pass on a query that asks for a pair; return the third, and its copy."""
        third = Stranger(self.world.host("10.0.0.9"))
        third.polite = True
        third.befriend(self.node.address)
        self.pass_on(flags=Flag.PAIR)
        return third, third.heard(GetPeers)[0]

    def refused(self) -> list[int]:
        """Return the units of the refusals upstream."""
        heard = self.stranger.heard(Forwarded)
        return [reply.units for reply in heard if reply.verdict is Verdict.NO_ROUTE]

    def test_pair_has_the_units_of_one(self) -> None:
        """Two next hops have the query at the same time, and its units between them."""
        _, copy = self.pass_on_to_two()
        both = [copy, *self.other.heard(GetPeers)]
        self.assertEqual([1, 2], sorted(each.units for each in both))
        self.assertEqual(1, len({each.qid for each in both}))

    def test_one_of_a_pair_is_enough(self) -> None:
        """While one of two next hops has the query, nothing is done about the other."""
        self.pass_on_to_two()
        self.take(Verdict.TAKEN, 0, self.other.heard(GetPeers)[0])
        self.world.run(limits.LOOKUP_S)  # the third never answers
        self.assertEqual([], self.refused())

    def test_pair_that_fails(self) -> None:
        """When neither of two has it any more, it is handed back with what is left."""
        third, copy = self.pass_on_to_two()
        self.take(Verdict.NO_ROUTE, 3, self.other.heard(GetPeers)[0])
        self.assertEqual([], self.refused())
        refusal = Forwarded(
            rid=copy.rid, attempt=0, verdict=Verdict.NO_ROUTE, units=3, token=b"t" * 8
        )
        third.send(self.node.address, refusal)
        self.world.run(0.01)
        self.assertEqual([3], self.refused())

    def offer(self, copy: GetPeers, **fields) -> Offer:
        """Return an offer by the other stranger."""
        made = {"cookie": b"", "swarm": 1, **fields}
        return Offer(qid=copy.qid, node_id=self.other.node_id, **made)

    def test_first_hop_relays_a_few_offers(self) -> None:
        """Offers come through the first hop with their maker's address, GET_PEERS_WIDE_UNITS."""
        copy = self.pass_on()
        for _ in range(limits.GET_PEERS_WIDE_UNITS + 3):
            self.other.send(self.node.address, self.offer(copy, cookie=b"c" * 12))
        self.world.run(1)
        offers = self.stranger.heard(Offer)
        self.assertEqual(limits.GET_PEERS_WIDE_UNITS, len(offers))
        self.assertEqual({self.other.address}, {offer.finder for offer in offers})
        self.assertEqual({b""}, {offer.cookie for offer in offers})

    def test_offers_that_may_not_be_relayed_are_dropped(self) -> None:
        """Unknown query, a finder already written in, and the initiator itself as the finder."""
        copy = self.pass_on()
        self.other.send(self.node.address, self.offer(copy, finder=Address("10.0.0.9", 1)))
        self.other.send(self.node.address, attrs.evolve(self.offer(copy), qid=bytes(12)))
        self.stranger.send(self.node.address, self.offer(copy))
        self.world.run(1)
        self.assertEqual([], self.stranger.heard(Offer))

    def test_offer_without_room_for_its_finder_is_dropped(self) -> None:
        """An offer filled to the last byte cannot be relayed, and breaks nothing."""
        copy = self.pass_on()
        full = self.offer(
            copy,
            swarm=60000,
            peers4=tuple(Address("10.1.1.1", port) for port in range(1, 12)),
            peers6=(Address("fd00::1", 1), Address("fd00::2", 1)),
        )
        size = self.other.send(self.node.address, full)
        self.assertGreater(size, limits.OFFER_BYTES - 6)
        self.other.send(self.node.address, self.offer(copy))
        self.world.run(1)
        self.assertEqual(1, len(self.stranger.heard(Offer)))
        self.assertEqual(0, self.node.node.dropped["bug"])

    def test_answer_through_a_wider_address_names_nobody_narrower(self) -> None:
        """Peers on our LAN are not told to a via on the Internet, whatever src says."""
        world = World(1)
        node = OverlayNode.on(world.host("93.184.216.34", "10.0.0.1"))
        far = Stranger(world.host("8.8.8.8"))
        token = far.token(node.address)
        node.network.peers.put(
            TOPIC, far.node_id, Address("10.0.0.5", 7667), Status.SEED, 0, world.now
        )
        query = GetPeers(
            node_id=far.node_id,
            token=token,
            qid=far.qid(),
            topic=TOPIC,
            src=Address("10.0.0.7", 7667),
            via=far.address,
            hops=5,
            flags=Flag.VIA,
        )
        far.ask(node.address, query)
        self.assertEqual([], far.heard(Offer))

    def test_stop_cancels_what_would_be_repeated(self) -> None:
        """After a stop no offer goes out any more."""
        self.node.join(Status.SEED)[0].stop()
        self.node.join(Status.SEED)
        self.stranger.send(self.node.address, self.query())
        self.world.run(0.1)
        self.node.stop()
        self.world.run(2)
        self.assertEqual(1, len(self.stranger.heard(Offer)))
