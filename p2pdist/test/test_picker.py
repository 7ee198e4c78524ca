"""Tests for :mod:`p2pdist.swarm.picker` and :mod:`p2pdist.swarm.masks`.

Pieces stand in strings, one character each: ``x`` is there, a space is not.
"""

from __future__ import annotations

import random

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from p2pdist import limits
from p2pdist.ids import NodeID, PieceIndex
from p2pdist.storage.pieces import Bitfield
from p2pdist.swarm import masks
from p2pdist.swarm.masks import Tally
from p2pdist.swarm.messages import DeclineReason
from p2pdist.swarm.picker import Pace, PiecePicker
from p2pdist.test.support import TestCase, given, run_machine

A, B, C, D = (NodeID(letter * 20) for letter in (b"a", b"b", b"c", b"d"))


def mask(text: str) -> int:
    """Return the mask of a string of pieces."""
    return sum(1 << index for index, character in enumerate(text) if character == "x")


def picker(have: str, seed: int = 1, **peers: str) -> PiecePicker:
    """Return a picker that has these pieces, with peers A to D that claim theirs."""
    made = PiecePicker(count=len(have), have=mask(have), rng=random.Random(seed))
    for name, pieces in peers.items():
        made.add_peer(NodeID(name.encode() * 20), mask(pieces))
    return made


def fetch(book: PiecePicker, peer: NodeID, index: int, now: float = 0.0, took: float = 1.0) -> None:
    """Take a piece and see it through to have."""
    book.take(peer, PieceIndex(index), now)
    book.arrived(peer, PieceIndex(index), now + took)
    book.verified(PieceIndex(index))


class MaskTests(TestCase):
    """Sets of pieces as integers, held against the obvious way."""

    @given(st.sets(st.integers(0, 200)), st.integers(201, 220))
    def test_bitfield_round_trip(self, pieces: set[int], count: int) -> None:
        """A mask and a wire bitfield say the same."""
        bitfield = Bitfield(count)
        for index in sorted(pieces):
            bitfield.set(index)
        made = masks.from_indices(pieces)
        self.assertEqual(bitfield.to_bytes(), masks.to_bitfield(made, count))
        self.assertEqual(made, masks.from_bitfield(bitfield.to_bytes()))
        self.assertEqual(sorted(pieces), list(masks.indices(made)))

    @given(st.sets(st.integers(0, 300), min_size=1), st.integers(0, 1000))
    def test_pick_takes_members(self, pieces: set[int], seed: int) -> None:
        """A picked piece is one of the mask; the first is the lowest."""
        made = masks.from_indices(pieces)
        self.assertIn(masks.pick(made, random.Random(seed)), pieces)
        self.assertEqual(min(pieces), masks.first(made))

    def test_pick_is_fair(self) -> None:
        """Each piece of a mask with gaps is picked about equally often."""
        rng, made = random.Random(1), masks.from_indices([0, 1, 50, 63, 64, 500])
        counts = dict.fromkeys(masks.indices(made), 0)
        for _ in range(6000):
            counts[masks.pick(made, rng)] += 1
        self.assertTrue(all(850 < count < 1150 for count in counts.values()), counts)

    @given(st.lists(st.tuples(st.booleans(), st.sets(st.integers(0, 40))), max_size=30), st.data())
    def test_tally_counts(self, steps: list[tuple[bool, set[int]]], data: st.DataObject) -> None:
        """Counters on edge count like a dict, and find the same smallest ones."""
        tally, counts = Tally(), dict.fromkeys(range(41), 0)
        for add, pieces in steps:
            changed = pieces if add else {index for index in pieces if counts[index]}
            for index in changed:
                counts[index] += 1 if add else -1
            made = masks.from_indices(changed) if changed else 0
            (tally.add if add else tally.remove)(made)
        self.assertEqual(counts, {index: tally.count(index) for index in counts})
        asked = data.draw(st.sets(st.integers(0, 40), min_size=1))
        least = min(counts[index] for index in asked)
        expected = sorted(index for index in asked if counts[index] == least)
        self.assertEqual(expected, list(masks.indices(tally.least(masks.from_indices(asked)))))
        none = sorted(index for index in asked if not counts[index])
        self.assertEqual(none, list(masks.indices(tally.uncounted(masks.from_indices(asked)))))


class ChoiceTests(TestCase):
    """Which piece answers a grant."""

    def test_rarest_first(self) -> None:
        """Of the missing pieces a peer has, the one that fewest have is chosen."""
        #         availability  3211
        book = picker("    ", a="xx x", b="xxx ", c="x   ")
        self.assertEqual(3, book.choose(A, 0.0))
        self.assertEqual(2, book.choose(B, 0.0))
        self.assertEqual(0, book.choose(C, 0.0))

    def test_ties_are_broken_by_chance(self) -> None:
        """Equally rare pieces are chosen differently by different nodes."""
        chosen = {picker("        ", seed, a="xxxxxxxx").choose(A, 0.0) for seed in range(40)}
        self.assertLess(5, len(chosen))

    def test_hint_is_taken_when_it_is_as_rare(self) -> None:
        """A hint among the rarest is taken, so that a seed can send each piece once first."""
        for hint in range(8):
            book = picker("        ", a="xxxxxxxx")
            self.assertEqual(hint, book.choose(A, 0.0, hint=PieceIndex(hint)))

    def test_hint_is_swapped(self) -> None:
        """A hint that is had, on its way, less rare or not claimed is swapped for the rarest."""
        book = picker("x    ", a="xxxx ", b=" xx  ")
        book.take(B, PieceIndex(2), 0.0)
        for hint in range(5):
            self.assertEqual(3, book.choose(A, 0.0, hint=PieceIndex(hint)))

    def test_nothing(self) -> None:
        """A peer without a missing piece that nobody sends is refused with nothing."""
        book = picker("x  ", a="xx ", b="xx ")
        book.take(B, PieceIndex(1), 0.0)
        self.assertEqual(DeclineReason.NOTHING, book.choose(A, 0.0))

    def test_busy(self) -> None:
        """Without room a useful peer is refused with busy, a useless one with nothing."""
        book = picker("x ", a=" x", b="x ")
        self.assertEqual(DeclineReason.BUSY, book.choose(A, 0.0, room=False))
        self.assertEqual(DeclineReason.NOTHING, book.choose(B, 0.0, room=False))

    def test_availability_follows_peers(self) -> None:
        """Haves, retractions and departures change what is rare."""
        book = picker("  ", a="xx", b="x ")
        self.assertEqual(1, book.choose(A, 0.0))
        book.peer_has(B, mask(" x"))
        book.peer_has(B, mask(" x"))
        book.peer_lacks(B, PieceIndex(0))
        book.peer_lacks(B, PieceIndex(0))
        self.assertEqual([1, 2], [book.availability.count(index) for index in range(2)])
        self.assertEqual(0, book.choose(A, 0.0))
        book.remove_peer(B)
        self.assertEqual([1, 1], [book.availability.count(index) for index in range(2)])

    def test_largest_content(self) -> None:
        """With PIECES_MAX pieces and CONNECTIONS peers the one missing piece is found."""
        everything = masks.full(limits.PIECES_MAX)
        lonely = PieceIndex(limits.PIECES_MAX // 3)
        book = PiecePicker(
            count=limits.PIECES_MAX, have=everything ^ masks.bit(lonely), rng=random.Random(1)
        )
        for number in range(limits.CONNECTIONS):
            book.add_peer(NodeID(number.to_bytes(20, "big")), everything)
        self.assertEqual(lonely, book.choose(NodeID(bytes(20)), 0.0))
        self.assertEqual(limits.CONNECTIONS, book.availability.count(lonely))


class RoomTests(TestCase):
    """How many pieces may be promised."""

    def promise(self, book: PiecePicker, peer: NodeID, now: float, start: int) -> int:
        """Take pieces from a peer while there is room, and return how many."""
        taken = 0
        while book.has_room(now):
            book.take(peer, PieceIndex(start + taken), now)
            taken += 1
        return taken

    def book(self) -> PiecePicker:
        """Return a picker with two peers that have everything."""
        return picker(" " * 600, a="x" * 600, b="x" * 600)

    def test_places(self) -> None:
        """Of peers nothing is known of, PIECES_IN_FLIGHT may promise a piece."""
        self.assertEqual(limits.PIECES_IN_FLIGHT, self.promise(self.book(), A, 0.0, 0))

    def test_slow_peers_do_not_hold_the_places(self) -> None:
        """A piece of a peer that is four times as slow takes much less than a place."""
        book = self.book()
        for index in range(8):
            fetch(book, A, index, now=100.0 * index, took=1.0)
            fetch(book, B, 8 + index, now=100.0 * index, took=4.0)
        fast = self.promise(book, A, 1000.0, 20)
        for index in range(fast):
            book.dropped(A, PieceIndex(20 + index))
        slow = self.promise(book, B, 1000.0, 20)
        self.assertLessEqual(fast, limits.PIECES_IN_FLIGHT + 1)
        self.assertLess(2 * limits.PIECES_IN_FLIGHT, slow)

    def test_long_ways_hold_more(self) -> None:
        """Where first bytes take long and pieces come quickly, more are promised, within bounds."""
        book = self.book()
        for index in range(100):
            now = 0.01 * index
            book.take(A, PieceIndex(index), now)
            book.progressed(A, 1, now + 0.5)
            book.arrived(A, PieceIndex(index), now + 0.5)
            book.verified(PieceIndex(index))
        promised = self.promise(book, B, 1.5, 100)
        self.assertLess(3 * limits.PIECES_IN_FLIGHT, promised)
        self.assertLessEqual(promised, limits.PROMISES_MAX)


class KnowledgeTests(TestCase):
    """What is known of peers and pieces."""

    def test_interest(self) -> None:
        """A peer is interesting while it claims a piece that is not verified."""
        book = picker("x ", a="x ", b=" x")
        self.assertEqual([False, True], [book.interesting(A), book.interesting(B)])
        book.take(B, PieceIndex(1), 0.0)
        self.assertTrue(book.interesting(B))
        book.arrived(B, PieceIndex(1), 1.0)
        book.verified(PieceIndex(1))
        self.assertFalse(book.interesting(B))
        self.assertTrue(book.complete)

    def test_seeds(self) -> None:
        """Complete peers are counted as seeds."""
        book = picker("  ", a="xx", b="x ", c="xx")
        self.assertEqual(2, book.seeds())
        self.assertEqual([True, False], [book.is_complete(A), book.is_complete(B)])

    def test_unavailable(self) -> None:
        """Missing pieces that nobody claims are named."""
        self.assertEqual(mask("   x"), picker("x   ", a=" x  ", b="  x ").unavailable())

    def test_lost(self) -> None:
        """A piece that the disk lost is missing again; any other state is left alone."""
        book = picker("xx ", a="xxx")
        book.lost(PieceIndex(0))
        book.take(A, PieceIndex(2), 0.0)
        book.lost(PieceIndex(2))
        self.assertEqual((mask("x  "), mask("  x"), 0, mask(" x ")), book.states())

    def test_spoiled(self) -> None:
        """A piece whose bytes were wrong is missing again."""
        book = picker(" ", a="x")
        book.take(A, PieceIndex(0), 0.0)
        book.arrived(A, PieceIndex(0), 1.0)
        self.assertEqual(DeclineReason.NOTHING, book.choose(A, 1.0))
        book.spoiled(PieceIndex(0))
        self.assertEqual(0, book.choose(A, 1.0))

    def test_departure_frees_promises(self) -> None:
        """What a peer had promised is missing when it goes."""
        book = picker("  ", a="xx", b="xx")
        book.take(A, PieceIndex(0), 0.0)
        self.assertTrue(book.is_promised(A, PieceIndex(0)))
        self.assertEqual([0], book.remove_peer(A))
        self.assertEqual(0, book.in_flight)
        self.assertEqual(0, book.choose(B, 0.0, hint=PieceIndex(0)))


class TimeTests(TestCase):
    """Peers that stall, drip or are slow."""

    def test_stalled(self) -> None:
        """A peer without progress for PIECE_PROGRESS_S is named with all it promised."""
        book = picker("    ", a="xxxx", b="xxxx")
        book.take(A, PieceIndex(0), 0.0)
        book.take(A, PieceIndex(1), 1.0)
        book.take(B, PieceIndex(2), 1.0)
        just_before = limits.PIECE_PROGRESS_S - 0.1
        self.assertEqual([], book.stalled(just_before))
        self.assertEqual([(A, [0, 1])], book.stalled(limits.PIECE_PROGRESS_S))

    def test_drips_are_no_progress(self) -> None:
        """Less than PIECE_PROGRESS_BYTES in that time is a stall, that many are progress."""
        for size, stalled in (
            (limits.PIECE_PROGRESS_BYTES - 1, 1),
            (limits.PIECE_PROGRESS_BYTES, 0),
        ):
            book = picker(" ", a="x")
            book.take(A, PieceIndex(0), 0.0)
            book.progressed(A, size, 9.0)
            self.assertEqual(stalled, len(book.stalled(limits.PIECE_PROGRESS_S)))

    def test_next_piece_starts_its_own_time(self) -> None:
        """A second promise waits behind the first: only the arrival of that starts its clock."""
        book = picker("  ", a="xx")
        book.take(A, PieceIndex(0), 0.0)
        book.take(A, PieceIndex(1), 0.0)
        book.arrived(A, PieceIndex(0), 9.0)
        self.assertEqual([], book.stalled(18.0))
        self.assertEqual([(A, [1])], book.stalled(9.0 + limits.PIECE_PROGRESS_S))

    def test_endgame(self) -> None:
        """The last piece is asked from a second peer when it is late, never from a third."""
        book = picker("    ", a="xxxx", b="xxxx", c="xxxx")
        for index in range(3):
            fetch(book, A, index)
        book.take(A, PieceIndex(3), 10.0)
        late = 10.0 + max(limits.TICK_S, limits.ENDGAME_FACTOR * 1.0)
        self.assertEqual(DeclineReason.NOTHING, book.choose(B, late - 0.1))
        self.assertEqual(3, book.choose(B, late))
        self.assertEqual(DeclineReason.BUSY, book.choose(B, late, room=False))
        self.assertEqual(DeclineReason.NOTHING, book.choose(A, late))
        book.take(B, PieceIndex(3), late)
        self.assertEqual(limits.ENDGAME_COPIES, book.in_flight)
        self.assertEqual(DeclineReason.NOTHING, book.choose(C, late + 100))
        self.assertEqual([A], book.arrived(B, PieceIndex(3), late + 1))
        self.assertEqual(0, book.in_flight)

    def test_one_copy_dropped(self) -> None:
        """A piece on its way twice stays on its way when one copy is dropped."""
        book = picker(" ", a="x", b="x")
        book.take(A, PieceIndex(0), 0.0)
        book.take(B, PieceIndex(0), 20.0)
        book.dropped(A, PieceIndex(0))
        self.assertEqual((0, mask("x"), 0, 0), book.states())
        book.dropped(B, PieceIndex(0))
        self.assertEqual((mask("x"), 0, 0, 0), book.states())

    def test_slow_piece_is_displaced(self) -> None:
        """A piece SLOW_FACTOR times as slow as usual goes when a refused peer waits for room."""
        book = picker("    ", a="xxxx", b="xxxx")
        fetch(book, B, 0, took=2.0)
        book.take(A, PieceIndex(1), 10.0)
        slow = 10.0 + limits.SLOW_FACTOR * 2.0
        self.assertIsNone(book.displaceable(slow))
        book.declined(B, DeclineReason.BUSY)
        self.assertIsNone(book.displaceable(slow - 0.1))
        self.assertEqual((A, 1), book.displaceable(slow))

    def test_patience_before_anything_is_usual(self) -> None:
        """Without any piece yet, patience is SLOW_S and doubles with each theft."""
        book = picker("  ", a="xx", b="xx")
        book.declined(B, DeclineReason.BUSY)
        self.assertIsNone(book.displaceable(1000.0))
        book.take(A, PieceIndex(0), 0.0)
        self.assertIsNone(book.displaceable(limits.SLOW_S - 0.1))
        self.assertEqual((A, 0), book.displaceable(limits.SLOW_S))
        self.assertIsNone(book.displaceable(limits.SLOW_S))
        self.assertEqual((A, 0), book.displaceable(2 * limits.SLOW_S))

    def test_usual_cannot_be_dragged(self) -> None:
        """One extremely slow piece hardly changes what is usual."""
        pace = Pace()
        pace.took(2.0)
        before = pace.slow_s
        pace.took(10_000.0)
        self.assertLess(pace.slow_s, 1.3 * before)

    def test_ready_again(self) -> None:
        """A refused peer is told once, as soon as its grant would be taken."""
        book = picker("  ", a="xx", b="x ")
        book.take(A, PieceIndex(0), 0.0)
        book.declined(B, DeclineReason.NOTHING)
        self.assertEqual([], list(book.ready_again(1.0, room=True)))
        book.dropped(A, PieceIndex(0))
        self.assertEqual([], list(book.ready_again(1.0, room=False)))
        self.assertEqual([B], list(book.ready_again(1.0, room=True)))
        self.assertEqual([], list(book.ready_again(1.0, room=True)))

    def test_long_ways_have_more_places(self) -> None:
        """With all places taken and no queue there is one more each time, while that lasts."""
        book = picker(" " * 64, a="x" * 64)
        book.adapt(0.0, clear=True)
        for index in range(limits.PIECES_IN_FLIGHT):
            self.assertTrue(book.has_room(0.0))
            book.take(A, PieceIndex(index), 0.0)
        self.assertFalse(book.has_room(0.0))
        for index in range(limits.PIECES_IN_FLIGHT, limits.PIECES_IN_FLIGHT_MOST):
            book.adapt(0.0, clear=True)
            self.assertTrue(book.has_room(0.0))
            book.take(A, PieceIndex(index), 0.0)
        book.adapt(0.0, clear=True)
        self.assertFalse(book.has_room(0.0))
        book.dropped(A, PieceIndex(0))
        self.assertTrue(book.has_room(0.0))
        book.adapt(0.0, clear=False)
        self.assertFalse(book.has_room(0.0))

    def test_invitations(self) -> None:
        """As many are told as there are places; who grants nothing for READY_S keeps none."""
        names = [NodeID(bytes([number]) * 20) for number in range(limits.PIECES_IN_FLIGHT + 4)]
        book = picker(" " * 64)
        for name in names:
            book.add_peer(name, mask("x" * 64))
        for name in names[3:]:
            book.declined(name, DeclineReason.BUSY)
        for index in range(limits.PIECES_IN_FLIGHT - 2):
            book.take(names[0], PieceIndex(index), 1.0)
        self.assertEqual(names[3:5], list(book.ready_again(1.0, room=True)))
        self.assertEqual([], list(book.ready_again(1.0, room=True)))
        book.take(names[3], PieceIndex(40), 1.0)
        self.assertEqual([], list(book.ready_again(1.0, room=True)))
        later = 1.0 + limits.READY_S
        self.assertEqual(names[5:6], list(book.ready_again(later, room=True)))
        book.declined(names[5], DeclineReason.BUSY)
        self.assertEqual(names[6:7], list(book.ready_again(later, room=True)))
        book.remove_peer(names[6])
        self.assertEqual(names[7:8], list(book.ready_again(later, room=True)))
        book.remove_peer(names[0])
        book.remove_peer(names[3])
        self.assertEqual([*names[8:], names[5]], list(book.ready_again(later, room=True)))

    def test_strikes(self) -> None:
        """After STRIKES failures in a row a peer has had its chances; a delivery clears them."""
        book = picker("   ", a="xxx")
        for _ in range(limits.STRIKES - 1):
            self.assertFalse(book.strike(A))
        fetch(book, A, 0)
        for _ in range(limits.STRIKES - 1):
            self.assertFalse(book.strike(A))
        self.assertTrue(book.strike(A))


class PickerMachine(RuleBasedStateMachine):
    """Peers come, claim, promise, deliver and go in any order; each piece stays in one state."""

    COUNT = 12

    def __init__(self) -> None:
        super().__init__()
        self.book = PiecePicker(count=self.COUNT, have=0, rng=random.Random(1))
        self.claims: dict[NodeID, set[int]] = {}
        self.flights: set[tuple[NodeID, int]] = set()
        self.writing: set[int] = set()
        self.have: set[int] = set()
        self.now = 0.0

    def index(self, number: int) -> PieceIndex:
        """Return a piece for any number."""
        return PieceIndex(number % self.COUNT)

    @rule(peer=st.sampled_from([A, B, C, D]), pieces=st.sets(st.integers(0, COUNT - 1)))
    def come_or_claim(self, peer: NodeID, pieces: set[int]) -> None:
        """A peer connects, or claims more."""
        made = masks.from_indices(pieces)
        if peer in self.claims:
            self.book.peer_has(peer, made)
        else:
            self.book.add_peer(peer, made)
        self.claims.setdefault(peer, set()).update(pieces)

    @precondition(lambda self: self.claims)
    @rule(data=st.data(), hint=st.integers(0, COUNT - 1), room=st.booleans())
    def grant(self, data: st.DataObject, hint: int, room: bool) -> None:
        """A peer grants; what is chosen is wanted, claimed and not promised by it already."""
        peer = data.draw(st.sampled_from(list(self.claims)))
        choice = self.book.choose(peer, self.now, hint=PieceIndex(hint), room=room)
        if isinstance(choice, DeclineReason):
            self.book.declined(peer, choice)
            return
        assert room
        assert choice in self.claims[peer]
        assert choice not in self.writing | self.have
        holders = [promise for promise in self.flights if promise[1] == choice]
        assert len(holders) < limits.ENDGAME_COPIES
        assert (peer, choice) not in self.flights
        self.book.take(peer, choice, self.now)
        self.flights.add((peer, choice))

    @precondition(lambda self: self.flights)
    @rule(data=st.data(), whole=st.booleans())
    def end_flight(self, data: st.DataObject, whole: bool) -> None:
        """A promised piece arrives, or is dropped."""
        peer, index = data.draw(st.sampled_from(sorted(self.flights)))
        if whole:
            losers = self.book.arrived(peer, PieceIndex(index), self.now)
            others = {other for other, piece in self.flights if piece == index} - {peer}
            assert set(losers) == others
            self.flights = {flight for flight in self.flights if flight[1] != index}
            self.writing.add(index)
        else:
            self.book.dropped(peer, PieceIndex(index))
            self.flights.remove((peer, index))

    @precondition(lambda self: self.writing)
    @rule(data=st.data(), good=st.booleans())
    def end_writing(self, data: st.DataObject, good: bool) -> None:
        """A piece is verified, or was wrong."""
        index = data.draw(st.sampled_from(sorted(self.writing)))
        self.writing.remove(index)
        if good:
            self.book.verified(PieceIndex(index))
            self.have.add(index)
        else:
            self.book.spoiled(PieceIndex(index))

    @precondition(lambda self: self.have)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """The disk loses a piece."""
        index = data.draw(st.sampled_from(sorted(self.have)))
        self.book.lost(PieceIndex(index))
        self.have.remove(index)

    @precondition(lambda self: self.claims)
    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        """A peer disconnects."""
        peer = data.draw(st.sampled_from(list(self.claims)))
        promised = {index for other, index in self.flights if other == peer}
        assert set(self.book.remove_peer(peer)) == promised
        self.flights = {flight for flight in self.flights if flight[0] != peer}
        del self.claims[peer]

    @rule(seconds=st.floats(0, 20))
    def wait(self, seconds: float) -> None:
        """Time passes; deadlines name only promises that exist."""
        self.now += seconds
        for peer, promised in self.book.stalled(self.now):
            assert {(peer, index) for index in promised} <= self.flights
        displaced = self.book.displaceable(self.now)
        assert displaced is None or displaced in self.flights
        list(self.book.ready_again(self.now, room=True))

    @invariant()
    def each_piece_is_in_one_state(self) -> None:
        """The four states are disjoint, complete, and those of the model."""
        missing, flying, writing, have = self.book.states()
        assert missing + flying + writing + have == masks.full(self.COUNT)
        assert missing | flying | writing | have == masks.full(self.COUNT)
        assert set(masks.indices(flying)) == {index for _, index in self.flights}
        assert set(masks.indices(writing)) == self.writing
        assert set(masks.indices(have)) == self.have
        assert self.book.in_flight == len(self.flights)

    @invariant()
    def availability_is_right(self) -> None:
        """The counters count the claims of connected peers."""
        for index in range(self.COUNT):
            claimed = sum(index in pieces for pieces in self.claims.values())
            assert self.book.availability.count(index) == claimed


class PickerMachineTests(TestCase):
    """Any order of events."""

    def test_states_stay_disjoint(self) -> None:
        """Whatever happens in whatever order, each piece is in exactly one state."""
        run_machine(PickerMachine)
