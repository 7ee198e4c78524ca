"""Tests for :mod:`p2pdist.swarm.uploader`.

Pieces stand in strings, one character each: ``x`` is there, a space is not.
"""

from __future__ import annotations

import random

from p2pdist import limits
from p2pdist.errors import UnexpectedMessage
from p2pdist.ids import NodeID, PieceIndex
from p2pdist.swarm.masks import Tally
from p2pdist.swarm.uploader import Offer, Uploader
from p2pdist.test.support import TestCase
from p2pdist.test.test_picker import A, B, C, D, mask

BIG = 64 * limits.BLOCK_BYTES
SMALL = limits.BLOCK_BYTES


def uploader(have: str, seed: int = 1, **peers: str) -> Uploader:
    """Return an uploader with these pieces and interested peers A to D that claim theirs."""
    availability = Tally()
    for pieces in peers.values():
        availability.add(mask(pieces))
    made = Uploader(
        count=len(have), have=mask(have), availability=availability, rng=random.Random(seed)
    )
    for name, pieces in peers.items():
        made.add_peer(NodeID(name.encode() * 20), mask(pieces), interested=True)
    return made


def offers(book: Uploader, now: float = 0.0) -> list[NodeID]:
    """Return whom all grants that are due now go to."""
    made = []
    while offer := book.next_offer(now):
        made.append(offer.peer)
    return made


def starts(book: Uploader, now: float = 0.0) -> list[tuple[NodeID, int]]:
    """Return what is started now."""
    made: list[tuple[NodeID, int]] = []
    while start := book.next_start(now):
        made.append((start.peer, start.index))
    return made


def give(book: Uploader, peer: NodeID, index: int, now: float) -> None:
    """See a granted piece through to the peer having it, and not saying so."""
    piece = PieceIndex(index)
    book.accepted(peer, piece, SMALL, 0.0)
    starts(book, now)
    book.progressed(peer, piece, SMALL, now)
    book.sent(peer, piece, now)
    book.received(peer, piece, now)


class GrantTests(TestCase):
    """Who is asked."""

    def test_slots(self) -> None:
        """UPLOAD_SLOTS peers are asked at once; pieces that will take long allow no more."""
        book = uploader("xx", a="  ", b="  ", c="  ", d="  ")
        asked = offers(book)
        self.assertEqual(limits.UPLOAD_SLOTS, len(set(asked)))
        for peer in asked:
            book.accepted(peer, PieceIndex(0), BIG, 0.0)
        self.assertEqual([], offers(book))

    def test_one_ahead(self) -> None:
        """GRANTS_AHEAD more are negotiated once a current piece ends soon, with somebody idle."""
        book = uploader("xx", a="  ", b="  ", c="  ", d="  ")
        asked = offers(book)
        for peer in asked:
            book.accepted(peer, PieceIndex(0), BIG, 0.0)
        starts(book)
        idle = ({A, B, C, D} - set(asked)).pop()
        book.progressed(asked[0], PieceIndex(0), BIG - limits.BLOCK_BYTES, 20.0)
        self.assertEqual([idle] * limits.GRANTS_AHEAD, offers(book, 20.0))

    def test_ends_soon_by_rate(self) -> None:
        """A piece that will end within AHEAD_S at its rate ends soon; before, it does not."""
        for sent, soon in ((BIG // 4, False), (BIG * 3 // 4, True)):
            book = uploader("xx", a="  ")
            offers(book)
            book.accepted(A, PieceIndex(0), BIG, 0.0)
            starts(book)
            elapsed = 2.0 * limits.AHEAD_S
            self.assertEqual(soon, book.progressed(A, PieceIndex(0), sent, elapsed))
            self.assertEqual([A] if soon else [], offers(book, elapsed))

    def test_single_peer_is_asked_ahead(self) -> None:
        """The only peer is asked for its next piece while the current one is on the wire."""
        book = uploader("xxxx", a="    ")
        self.assertEqual([A], offers(book))
        book.accepted(A, PieceIndex(0), SMALL, 0.0)
        self.assertEqual([(A, 0)], starts(book))
        self.assertEqual([A], offers(book))

    def test_poorest_of_three(self) -> None:
        """Of POOREST_OF sampled peers the one that holds least is asked first."""
        book = uploader("xxxx", a="xxx ", b="x   ", c="xx  ")
        self.assertEqual(3, limits.POOREST_OF)
        self.assertEqual(B, offers(book)[0])

    def test_sample_is_chance(self) -> None:
        """With more peers than the sample the poorest of all is not always first."""
        firsts = set()
        for seed in range(40):
            book = uploader("xxxx", seed, a="   x", b="  xx", c="  x ", d="    ")
            offer = book.next_offer(0.0)
            assert offer is not None
            firsts.add(offer.peer)
        self.assertIn(D, firsts)
        self.assertLess(1, len(firsts))
        self.assertNotIn(B, firsts)

    def test_silence_does_not_make_poor(self) -> None:
        """Who was given pieces counts as holding them, whatever it claims (decision 25)."""
        book = uploader("xxxx", a="    ")
        for index in range(3):
            book.next_offer(0.0)
            give(book, A, index, 0.0)
        book.add_peer(B, mask("xx  "), interested=True)
        self.assertEqual(B, offers(book)[0])

    def test_who_is_not_asked(self) -> None:
        """Peers without interest, with everything we have, or that refused are not asked."""
        book = uploader("xx ", a="xx ", b="   ", c="   ")
        book.interest(B, wanted=False)
        self.assertEqual([C], offers(book))
        book.declined(C)
        self.assertEqual([], offers(book))
        book.ready(C)
        self.assertEqual([C], offers(book))
        book.interest(B, wanted=True)
        self.assertEqual([B], offers(book))

    def test_unanswered_grant_frees_its_place(self) -> None:
        """After GRANT_ANSWER_S a grant holds no place, but its answer still counts."""
        book = uploader("xx", a="  ", b="  ", c="  ", d="  ")
        first = offers(book)
        self.assertEqual([], offers(book, limits.GRANT_ANSWER_S - 0.1))
        later = offers(book, limits.GRANT_ANSWER_S)
        self.assertTrue(later)
        self.assertNotIn(later[0], first)
        book.accepted(first[0], PieceIndex(0), SMALL, 0.0)

    def test_answers_need_a_grant(self) -> None:
        """A request or decline without a grant, or twice for a piece, breaks the protocol."""
        book = uploader("xx", a="  ")
        with self.assertRaises(UnexpectedMessage):
            book.accepted(A, PieceIndex(0), SMALL, 0.0)
        with self.assertRaises(UnexpectedMessage):
            book.declined(A)
        offers(book)
        book.accepted(A, PieceIndex(0), SMALL, 0.0)
        starts(book)
        offers(book)
        with self.assertRaises(UnexpectedMessage):
            book.accepted(A, PieceIndex(0), SMALL, 0.0)


class HintTests(TestCase):
    """What is proposed."""

    def test_each_piece_once_before_any_twice(self) -> None:
        """A complete node that serves one newcomer after the other sends each piece once first."""
        book = uploader("xxxxxx")
        sent = []
        for number in range(12):
            newcomer = NodeID(bytes([number]) * 20)
            book.add_peer(newcomer, 0, interested=True)
            offer = book.next_offer(float(number))
            assert offer is not None
            give(book, newcomer, offer.index, float(number))
            book.remove_peer(newcomer)
            sent.append(offer.index)
        self.assertEqual(list(range(6)), sorted(sent[:6]))
        self.assertEqual(list(range(6)), sorted(sent[6:]))

    def test_only_accepted_pieces_count(self) -> None:
        """A grant that is swapped counts for the piece that was taken; one declined for none."""
        book = uploader("xx", a="  ", b="  ")
        offer = book.next_offer(0.0)
        assert offer is not None
        other = PieceIndex(1 - offer.index)
        book.accepted(offer.peer, other, SMALL, 0.0)
        self.assertEqual([0, 1], [book.sent_count(offer.index), book.sent_count(other)])
        second = book.next_offer(0.0)
        assert second is not None
        self.assertEqual(offer.index, second.index)
        book.declined(second.peer)
        self.assertEqual(0, book.sent_count(offer.index))

    def test_unfinished_pieces_do_not_count(self) -> None:
        """A piece that was cancelled, or whose peer went, counts as not sent."""
        book = uploader("x", a=" ", b=" ")
        offers(book)
        book.accepted(A, PieceIndex(0), BIG, 0.0)
        book.accepted(B, PieceIndex(0), BIG, 0.0)
        starts(book)
        self.assertEqual(2, book.sent_count(PieceIndex(0)))
        book.ended(A, PieceIndex(0))
        book.remove_peer(B)
        self.assertEqual(0, book.sent_count(PieceIndex(0)))

    def test_partial_node_proposes_what_is_rare(self) -> None:
        """A node without everything proposes the piece that fewest peers claim."""
        #                             availability 211
        book = uploader("xx ", a="x  ", b="x  ", c=" xx", d="   ")
        hints = {}
        while offer := book.next_offer(0.0):
            hints[offer.peer] = offer.index
        self.assertEqual(1, hints.get(D, 1))
        self.assertEqual(0, hints.get(C, 0))

    def test_gained_and_lost(self) -> None:
        """A piece is proposed from its verification on, until the disk loses it."""
        book = uploader("  ", a="  ")
        self.assertEqual([], offers(book))
        book.gained(PieceIndex(1))
        self.assertEqual(Offer(A, PieceIndex(1)), book.next_offer(0.0))
        self.assertTrue(book.can_serve(PieceIndex(1)))
        book.lost(PieceIndex(1))
        self.assertFalse(book.can_serve(PieceIndex(1)))


class SendingTests(TestCase):
    """What is started, and when a slot is free again."""

    def test_one_piece_at_a_time_to_each(self) -> None:
        """Pieces for one peer start one after the other."""
        book = uploader("xx", a="  ")
        offers(book)
        book.accepted(A, PieceIndex(0), SMALL, 0.0)
        self.assertEqual([(A, 0)], starts(book))
        offers(book)
        book.accepted(A, PieceIndex(1), SMALL, 0.0)
        self.assertEqual([], starts(book))
        book.sent(A, PieceIndex(0), 0.0)
        self.assertEqual([(A, 1)], starts(book))

    def test_sent_piece_keeps_its_slot(self) -> None:
        """Slots are free again when the peers have the pieces, not when the kernel has them."""
        book = uploader("x", a=" ", b=" ", c=" ", d=" ")
        for peer in offers(book):
            book.accepted(peer, PieceIndex(0), SMALL, 0.0)
        sending = starts(book)
        self.assertEqual(limits.UPLOAD_SLOTS, len(sending))
        fourth = offers(book)
        book.accepted(fourth[0], PieceIndex(0), SMALL, 0.0)
        for peer, index in sending:
            book.sent(peer, PieceIndex(index), 0.0)
        self.assertEqual([], starts(book))
        book.received(sending[0][0], PieceIndex(0), 1.0)
        self.assertEqual([(fourth[0], 0)], starts(book, 1.0))

    def test_quick_line_is_filled(self) -> None:
        """While pieces drain within DRAIN_S, sent ones hold no slot."""
        book = uploader("xxxx", a="    ")
        offers(book)
        book.accepted(A, PieceIndex(0), SMALL, 0.0)
        starts(book)
        book.sent(A, PieceIndex(0), 0.0)
        book.received(A, PieceIndex(0), limits.DRAIN_S)
        for index in (1, 2, 3):
            offers(book)
            book.accepted(A, PieceIndex(index), SMALL, 0.0)
            self.assertEqual([(A, index)], starts(book))
            book.sent(A, PieceIndex(index), 1.0)

    def test_starved_slots_negotiate_earlier(self) -> None:
        """A slot that finds grants unanswered and nothing waiting raises the number ahead."""
        book = uploader("xxxx", a="    ", b="    ", c="    ", d="    ")
        asked = offers(book)
        for peer in asked:
            book.accepted(peer, PieceIndex(0), SMALL, 0.0)
        starts(book)
        self.assertEqual(1, len(offers(book)))
        book.sent(asked[0], PieceIndex(0), 0.0)
        book.received(asked[0], PieceIndex(0), 1.0)
        self.assertEqual(2, len(offers(book, 1.0)))

    def test_ahead_is_bounded(self) -> None:
        """However often slots starve, GRANTS_AHEAD_MAX grants beyond them stay unanswered."""
        book, now = uploader("x"), 0.0
        for number in range(60):
            book.add_peer(NodeID(bytes([number]) * 20), 0, interested=True)
        asked = offers(book)
        most = limits.UPLOAD_SLOTS_RANGE[1] + limits.GRANTS_AHEAD_MAX
        longest = 0
        for _ in range(30):
            peer, now = asked.pop(0), now + 0.001
            give(book, peer, 0, now)
            book.interest(peer, wanted=False)
            asked += offers(book, now)
            longest = max(longest, len(asked))
        self.assertLessEqual(longest, most)

    def test_received_needs_sent(self) -> None:
        """Nobody can have a piece that was not sent whole."""
        book = uploader("x", a=" ")
        with self.assertRaises(UnexpectedMessage):
            book.received(A, PieceIndex(0), 0.0)
        offers(book)
        book.accepted(A, PieceIndex(0), SMALL, 0.0)
        starts(book)
        with self.assertRaises(UnexpectedMessage):
            book.received(A, PieceIndex(0), 0.0)
        self.assertTrue(book.is_unsent(A, PieceIndex(0)))
        book.sent(A, PieceIndex(0), 0.0)
        self.assertFalse(book.is_unsent(A, PieceIndex(0)))

    def test_slow_readers_lose_their_slots(self) -> None:
        """Peers that read drop by drop keep their piece, but hold no slot after SLOW_S."""
        book = uploader("x", a=" ", b=" ", c=" ", d=" ")
        slow = offers(book)
        for peer in slow:
            book.accepted(peer, PieceIndex(0), BIG, 0.0)
        starts(book)
        self.assertEqual([], offers(book, limits.SLOW_S - 0.1))
        last = offers(book, limits.SLOW_S)
        self.assertEqual({A, B, C, D} - set(slow), set(last))
        book.accepted(last[0], PieceIndex(0), BIG, 0.0)
        self.assertEqual([(last[0], 0)], starts(book, limits.SLOW_S))

    def test_who_does_not_confirm_gets_no_more(self) -> None:
        """A peer with a piece unconfirmed for SLOW_S is asked nothing until it confirms."""
        book = uploader("xxxx", a="    ")
        offers(book)
        book.accepted(A, PieceIndex(0), SMALL, 0.0)
        starts(book)
        book.sent(A, PieceIndex(0), 0.0)
        self.assertEqual([], offers(book, limits.SLOW_S))
        book.received(A, PieceIndex(0), limits.SLOW_S)
        self.assertEqual([A], offers(book, limits.SLOW_S))

    def test_stalled_readers_are_named(self) -> None:
        """A peer that reads less than PIECE_PROGRESS_BYTES in PIECE_PROGRESS_S is named."""
        book = uploader("x", a=" ", b=" ")
        offers(book)
        for peer in (A, B):
            book.accepted(peer, PieceIndex(0), BIG, 0.0)
        starts(book)
        book.progressed(A, PieceIndex(0), limits.PIECE_PROGRESS_BYTES, 5.0)
        book.progressed(B, PieceIndex(0), limits.PIECE_PROGRESS_BYTES - 1, 5.0)
        self.assertEqual([], book.stalled(limits.PIECE_PROGRESS_S - 0.1))
        self.assertEqual([B], book.stalled(limits.PIECE_PROGRESS_S))
