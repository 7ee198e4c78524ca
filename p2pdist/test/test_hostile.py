"""Tests for :mod:`p2pdist.swarm.exchange` and :mod:`p2pdist.swarm.transfer`: peers that lie.

Each peer proves a key of its own and then breaks the rules, or keeps them without helping.
"""

from __future__ import annotations

from p2pdist import limits
from p2pdist.ids import PieceIndex
from p2pdist.swarm.messages import (
    Bitfield,
    Block,
    Bye,
    ByeReason,
    Cancel,
    Decline,
    DeclineReason,
    Grant,
    Have,
    HelloReply,
    Interest,
    Message,
    MetadataPart,
    MetadataRequest,
    Ready,
    Received,
    Reject,
    RejectReason,
    Request,
)
from p2pdist.test.lies import drip, half, on_request, reject, silent, trickle, wrong_bytes
from p2pdist.test.storehouse import PIECE, Content
from p2pdist.test.swarmfakes import Behaviour, Liar, LiarNode, SwarmNode, file_of, honest
from p2pdist.test.test_transfer import SwarmCase


def nothing(liar: Liar, index: int) -> None:
    """Never answer."""


class HostileCase(SwarmCase):
    """One honest leecher, called ``victim``, and liars."""

    def victim_of(self, *behaviours: Behaviour, pieces: int = 6) -> SwarmNode:
        """Make a leecher that has joined a liar of each behaviour."""
        content = file_of(pieces)
        victim = self.node(1, content)
        victim.leech()
        self.liars = [
            LiarNode(self.world, 100 + number, content, behaviour)
            for number, behaviour in enumerate(behaviours)
        ]
        for liar in self.liars:
            victim.transfer.peer_joined(liar.address, liar.key.node_id, dial_now=True)
        return victim

    def add_seed(self, content: Content, *victims: SwarmNode) -> SwarmNode:
        """Make an honest seed that victims join."""
        seed = self.node(50, content)
        seed.seed()
        for victim in victims:
            victim.meet(seed)
        return seed

    def assert_closed(self, liar: LiarNode, reason: ByeReason = ByeReason.PROTOCOL) -> None:
        """Fail unless the liar was sent away with this word."""
        self.assertIn(Bye(reason), liar.heard(Bye))


class WrongDataTests(HostileCase):
    """Bytes that are not the content's."""

    def test_honest_by_hand(self) -> None:
        """The played peer is a good seed when it does not lie, so that its lies are what fails."""
        victim = self.victim_of(honest)
        self.finish([victim])
        self.stop()

    def test_wrong_piece(self) -> None:
        """A peer that sends a wrong piece is banned at the first one; the copy is right."""
        victim = self.victim_of(on_request(wrong_bytes), on_request(wrong_bytes))
        self.add_seed(victim.content, victim)
        self.finish([victim])
        for liar in self.liars:
            self.assertLessEqual(len(liar.heard(Request)), 2)
            self.assertEqual(1, len(liar.connections))
        self.assertIn(True, [Bye(ByeReason.BANNED) in liar.heard(Bye) for liar in self.liars])
        self.stop()

    def test_nine_of_ten_poison(self) -> None:
        """With nine poisoners and one honest seed the copy is right, and little is wasted."""
        victim = self.victim_of(*[on_request(wrong_bytes)] * 9, pieces=20)
        self.add_seed(victim.content, victim)
        self.finish([victim])
        wasted = victim.progress.downloaded_bytes - len(victim.content.data)
        self.assertLessEqual(wasted, 2 * 9 * PIECE)

    def test_poisoner_comes_back(self) -> None:
        """After BAN_S a poisoner gets one more chance, after CORRUPT_PIECES_MAX none."""
        victim = self.victim_of(on_request(wrong_bytes))
        self.world.run(limits.BAN_S + 2 * limits.DIAL_RETRY_S[1])
        self.assertEqual(limits.CORRUPT_PIECES_MAX, len(self.liars[0].connections))
        self.world.run(3 * limits.BAN_S)
        self.assertEqual(limits.CORRUPT_PIECES_MAX, len(self.liars[0].connections))
        self.assertEqual(0, victim.progress.have_pieces)

    def test_wrong_metadata(self) -> None:
        """False metadata bans its sender, and another peer is asked."""

        def lie(liar: Liar, message: Message) -> None:
            if isinstance(message, MetadataRequest):
                liar.say(MetadataPart(5, 0, b"wrong"))

        victim = self.victim_of(lie, lie, lie)
        self.world.run(10)
        for liar in self.liars:
            self.assert_closed(liar, ByeReason.BANNED)
        self.add_seed(victim.content, victim)
        self.finish([victim])

    def test_unrequested_data(self) -> None:
        """Blocks of pieces that were not asked for close the connection, and are not stored."""

        def lie(liar: Liar, message: Message) -> None:
            if isinstance(message, Request):
                liar.say(Block(PieceIndex((message.index + 1) % 6), 0, b"x" * 100))
            else:
                honest(liar, message)

        victim = self.victim_of(lie)
        self.world.run(1)
        self.assert_closed(self.liars[0])
        self.assertEqual(0, victim.progress.have_pieces)


class WithholdingTests(HostileCase):
    """Peers that promise and do not deliver."""

    def test_nine_of_ten_stall(self) -> None:
        """With nine peers that stop in the middle of pieces the tenth completes the copy soon."""
        victim = self.victim_of(*[on_request(half)] * 9, pieces=20)
        self.add_seed(victim.content, victim)
        self.finish([victim], timeout=3 * limits.PIECE_PROGRESS_S)
        self.stop()

    def test_drip(self) -> None:
        """Peers that send a byte a second lose their pieces as if they sent nothing."""
        victim = self.victim_of(*[on_request(drip)] * limits.PIECES_IN_FLIGHT, pieces=12)
        self.world.run(2)
        self.assertEqual(0, victim.progress.have_pieces)
        self.add_seed(victim.content, victim)
        self.finish([victim], timeout=4 * limits.PIECE_PROGRESS_S)

    def test_slow_enough_to_be_progress(self) -> None:
        """Peers just above a stall hold every place until somebody waits for one."""
        slow = on_request(lambda liar, index: trickle(liar, index, 1800))
        victim = self.victim_of(*[slow] * limits.PIECES_IN_FLIGHT, pieces=12)
        self.world.run(2)
        self.add_seed(victim.content, victim)
        self.finish([victim], timeout=3 * limits.SLOW_S)

    def test_last_piece_is_fetched_twice(self) -> None:
        """A piece that one peer holds back at the end is fetched from a second one."""

        def only_two(liar: Liar, message: Message) -> None:
            if isinstance(message, Interest) and message.wanted:
                liar.say(Grant(PieceIndex(2)))
            elif isinstance(message, Request) and message.index == 2:
                trickle(liar, 2, 4000)
            elif isinstance(message, Request):
                liar.send_piece(message.index, liar.node.content.piece(message.index))
                liar.say(Grant(PieceIndex(2)))
            else:
                honest(liar, message)

        victim = self.victim_of(only_two)
        self.world.run_until(lambda: self.liars[0].heard(Request), 5)
        self.add_seed(victim.content, victim)
        self.finish([victim], timeout=limits.PIECE_PROGRESS_S)
        self.assertTrue(self.liars[0].heard(Cancel) or len(self.liars[0].heard(Received)))

    def test_grant_claims_its_piece(self) -> None:
        """A granted piece is asked for though the have that tells of it is still to come."""

        def terse(liar: Liar, message: Message) -> None:
            if isinstance(message, Request):
                liar.send_piece(message.index, liar.node.content.piece(message.index))
            else:
                honest(liar, message)
            received = [m for m in liar.heard if isinstance(m, Received)]
            if isinstance(message, Bitfield | Received) and len(received) < 6:
                liar.say(Grant(PieceIndex(len(received))))

        victim = self.victim_of(terse)
        self.liars[0].bits = bytes(len(self.liars[0].bits))
        self.finish([victim])

    def test_strikes(self) -> None:
        """A peer that refuses STRIKES pieces it claims is let go, and called slower each time."""
        self.victim_of(on_request(reject), pieces=40)
        self.world.run(60)
        first = [m for m in self.liars[0].connections[0].heard if isinstance(m, Request)]
        self.assertEqual(limits.STRIKES, len(first))
        self.assert_closed(self.liars[0], ByeReason.STALLED)
        self.assertLess(len(self.liars[0].connections), 7)

    def test_metadata_stall(self) -> None:
        """Sources that never send the metadata are given up one after the other."""

        def stall(liar: Liar, message: Message) -> None:
            """Say nothing."""

        victim = self.victim_of(stall, stall)
        self.world.run(1)
        self.assertEqual("metadata from 2 peers", victim.progress.waiting_for)
        self.add_seed(victim.content, victim)
        self.finish([victim], timeout=3 * limits.METADATA_PROGRESS_S)

    def test_unsettled_cancels(self) -> None:
        """A peer that grants on without settling cancelled requests gets no more of them."""

        def insist(liar: Liar, message: Message) -> None:
            honest(liar, message) if not isinstance(message, Request) else None
            if isinstance(message, Request | Cancel):
                liar.say(Grant(PieceIndex(0)))

        self.victim_of(insist, pieces=40)
        self.world.run(20)
        for liar in self.liars[0].connections:
            requests = [m for m in liar.heard if isinstance(m, Request)]
            self.assertLessEqual(len(requests), limits.REQUESTS_MAX)


class RuleTests(HostileCase):
    """Messages that may not come, or not like this."""

    def refused(self, *messages: Message) -> None:
        """Fail unless a peer that sends these after its bitfield is sent away."""

        def lie(liar: Liar, message: Message) -> None:
            honest(liar, message)
            if isinstance(message, Interest) and message.wanted:
                liar.say(*messages)

        self.setUp()
        self.victim_of(lie)
        self.world.run(1)
        self.assert_closed(self.liars[0])

    def test_out_of_order(self) -> None:
        """Answers to nothing, a second bitfield and handshake messages close the connection."""
        index = PieceIndex(0)
        for message in (
            Bitfield(b"\xfc"),
            Request(index),
            Decline(DeclineReason.BUSY),
            Received(index),
            Reject(index, RejectReason.CANCELLED),
            MetadataPart(3, 0, b"abc"),
            Have((PieceIndex(6),)),
            Grant(PieceIndex(6)),
            HelloReply(bytes(32), bytes(32), bytes(64)),
        ):
            self.refused(message)

    def test_metadata_twice(self) -> None:
        """The metadata is served once on a connection; a second request closes it."""
        self.refused(MetadataRequest(), MetadataRequest())

    def test_harmless_repeats(self) -> None:
        """Cancels of nothing, ready without a decline and repeated haves are no offence."""

        def chatter(liar: Liar, message: Message) -> None:
            honest(liar, message)
            if isinstance(message, Interest):
                liar.say(Cancel(PieceIndex(3)), Ready(), Have((PieceIndex(1), PieceIndex(1))))

        victim = self.victim_of(chatter)
        self.finish([victim])

    def test_lying_bitfields(self) -> None:
        """A bitfield of the wrong size or with spare bits closes the connection."""
        for bits in (b"", b"\xfc\x00", b"\xff", bytes(limits.PIECES_MAX // 8)):
            self.setUp()
            content = file_of(6)
            victim = self.node(1, content)
            seed = self.add_seed(content, victim)
            victim.leech()
            self.finish([victim])
            liar = LiarNode(self.world, 100, content, honest)
            liar.bits = b""
            liar.dial(seed.address)
            self.world.run(1)
            liar.connections[0].say(Bitfield(bits))
            self.world.run(1)
            self.assert_closed(liar)

    def test_lying_bitfield_before_the_metadata(self) -> None:
        """A false bitfield that came before anybody could tell closes when the store is open."""
        for bits in (b"\xff\xff\xff", b"\xfc\x00", b"\xff"):
            self.setUp()
            victim = self.victim_of(honest, honest)
            self.liars[1].bits = bits
            self.finish([victim])
            self.assert_closed(self.liars[1])

    def test_early_talk(self) -> None:
        """Before the metadata: haves need a bitfield, requests a grant; grants are declined."""

        def early(*messages: Message) -> LiarNode:
            self.setUp()
            content = file_of(6)
            victim = self.node(1, content)
            victim.leech()
            liar = LiarNode(self.world, 100, content, silent)
            liar.bits = b""
            liar.dial(victim.address)
            self.world.run(1)
            liar.connections[0].say(*messages)
            self.world.run(1)
            return liar

        self.assert_closed(early(Have((PieceIndex(0),))))
        self.assert_closed(early(Request(PieceIndex(0))))
        self.assert_closed(early(MetadataRequest()))
        liar = early(
            Grant(PieceIndex(0)), Interest(True), Bitfield(b"\xfc"), Have((PieceIndex(1),))
        )
        self.assertEqual([Decline(DeclineReason.NOTHING)], liar.heard(Decline))
        self.assertEqual(1, len(liar.heard(MetadataRequest)))

    def test_junk_after_the_handshake(self) -> None:
        """A proved peer that sends junk, or a frame without end, is sent away."""
        for junk in (b"\xff" * 20, b"\x00\x10\x00\x00\x15", b"\x00\x00\x00\x02\x7f\x00"):
            content = file_of(6)
            self.setUp()
            seed = self.add_seed(content)
            liar = LiarNode(self.world, 100, content, honest)
            liar.bits = b"\x00"
            liar.dial(seed.address)
            self.world.run(1)
            liar.connections[0].raw(junk)
            self.world.run(1)
            self.assert_closed(liar)
            self.stop()


class GreedyTests(HostileCase):
    """Peers that take more than they should."""

    def leech_by_hand(self, behaviour: Behaviour, pieces: int = 40) -> LiarNode:
        """Make a peer without any piece that calls the seed and is interested."""
        content = file_of(pieces)
        self.seed_node = self.add_seed(content)
        liar = LiarNode(self.world, 100, content, behaviour)
        liar.bits = bytes((pieces + 7) // 8)
        liar.dial(self.seed_node.address)
        self.world.run(0.5)
        liar.connections[0].say(Interest(True))
        return liar

    def test_request_without_grant(self) -> None:
        """Nobody can queue requests: one more than was granted closes the connection."""

        def greedy(liar: Liar, message: Message) -> None:
            if isinstance(message, Grant):
                liar.say(*(Request(PieceIndex(index)) for index in range(20)))

        liar = self.leech_by_hand(greedy)
        self.world.run(1)
        self.assert_closed(liar)
        self.assertLess(self.seed_node.progress.uploaded_bytes, 20 * PIECE)

    def test_reader_that_never_reads(self) -> None:
        """A peer that takes grants and reads nothing is let go; others are served meanwhile."""

        def stuck(liar: Liar, message: Message) -> None:
            if isinstance(message, Grant):
                liar.say(Request(message.index))
                assert liar.transport is not None
                if len([m for m in liar.heard if isinstance(m, Grant)]) > 20:
                    liar.transport.pauseProducing()  # type: ignore[attr-defined]

        liar = self.leech_by_hand(stuck, pieces=60)
        friend = self.node(2, liar.content)
        friend.leech()
        friend.meet(self.seed_node)
        self.finish([friend], timeout=60)
        self.world.run(3 * limits.IDLE_S)
        self.assertEqual(1, self.seed_node.progress.peers, "the friend")

    def test_silence_after_grants(self) -> None:
        """Peers that never answer grants do not keep the seed from others."""
        content = file_of(10)
        seed = self.add_seed(content)
        for number in range(limits.UPLOAD_SLOTS + limits.GRANTS_AHEAD):
            liar = LiarNode(self.world, 100 + number, content, silent)
            liar.bits = bytes(2)
            liar.dial(seed.address)
            self.world.run(0.5)
            liar.connections[0].say(Interest(True))
        self.world.run(0.5)
        friend = self.node(2, content)
        friend.leech()
        friend.meet(seed)
        self.finish([friend], timeout=4 * limits.GRANT_ANSWER_S)

    def test_never_confirms(self) -> None:
        """A peer that confirms nothing gets little, and does not keep the seed from others."""

        def thief(liar: Liar, message: Message) -> None:
            if isinstance(message, Grant):
                liar.say(Request(message.index))

        liar = self.leech_by_hand(thief)
        self.world.run(5)
        taken = self.seed_node.progress.uploaded_bytes
        self.assertLessEqual(taken, (limits.UPLOAD_SLOTS + limits.PIECES_IN_FLIGHT) * PIECE)
        friend = self.node(2, liar.content)
        friend.leech()
        friend.meet(self.seed_node)
        self.finish([friend], timeout=2 * limits.SLOW_S)

    def test_claims_nothing_and_gets_no_more(self) -> None:
        """A peer that hides what it was given is not served before an honest newcomer."""
        self.world.link(delay=0.002, bandwidth=500_000.0)

        def take_hint(liar: Liar, message: Message) -> None:
            if isinstance(message, Grant):
                liar.say(Request(message.index))
            elif isinstance(message, Block) and message.offset + len(message.data) == PIECE:
                liar.say(Received(message.index))

        self.leech_by_hand(take_hint)
        self.world.run(2)
        friend = self.node(2, self.seed_node.content)
        friend.leech()
        friend.meet(self.seed_node)
        before = self.seed_node.progress.uploaded_bytes
        self.finish([friend])
        given = self.seed_node.progress.uploaded_bytes - before
        self.assertLess(given, 2.2 * len(friend.content.data))
