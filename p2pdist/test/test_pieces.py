"""Tests of :mod:`p2pdist.storage.pieces`."""

from __future__ import annotations

from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.errors import LocalProtocolError, MalformedMessage
from p2pdist.storage.pieces import Bitfield, Geometry
from p2pdist.test.support import TestCase, given


class GeometryTests(TestCase):
    """How a content is cut."""

    def test_last_piece_is_what_is_left(self) -> None:
        """Ten bytes in pieces of four are two whole pieces and one of two bytes."""
        geometry = Geometry(10, 4)
        self.assertEqual([4, 4, 2], [geometry.size_of(index) for index in range(3)])
        self.assertEqual([0, 4, 8], [geometry.offset_of(index) for index in range(3)])
        self.assertEqual(3, geometry.count)

    def test_empty_content_has_no_pieces(self) -> None:
        """Nothing is cut into nothing."""
        self.assertEqual(0, Geometry(0, 4).count)

    @given(st.integers(1, 1 << 43), st.sampled_from([1 << 16, 1 << 20, 1 << 24]))
    def test_sizes_add_up(self, length: int, piece_length: int) -> None:
        """All pieces but the last are whole, and together they are the content."""
        geometry = Geometry(length, piece_length)
        last = geometry.count - 1
        self.assertEqual(length, geometry.offset_of(last) + geometry.size_of(last))
        self.assertTrue(0 < geometry.size_of(last) <= piece_length)

    @given(st.integers(0, 100), st.integers(1, 9), st.integers(0, 99), st.integers(0, 99))
    def test_covering_is_what_overlaps(
        self, length: int, piece_length: int, offset: int, size: int
    ) -> None:
        """A range covers exactly the pieces it shares a byte with."""
        geometry = Geometry(length, piece_length)
        end = min(offset + size, length)
        overlapping = [
            index
            for index in range(geometry.count)
            if max(offset, geometry.offset_of(index))
            < min(end, geometry.offset_of(index) + geometry.size_of(index))
        ]
        self.assertEqual(overlapping, list(geometry.covering(offset, end - offset)))

    def test_indices_of_strangers_are_checked(self) -> None:
        """Neither a negative index nor one past the end becomes a PieceIndex."""
        geometry = Geometry(10, 4)
        self.assertEqual(2, geometry.check(2))
        for index in (-1, 3, 1 << 63):
            self.assertRaises(MalformedMessage, geometry.check, index)


class BitfieldTests(TestCase):
    """The set of pieces."""

    @given(st.integers(1, 70), st.data())
    def test_behaves_as_a_set(self, count: int, data: st.DataObject) -> None:
        """After any sets and clears it holds what a set of integers would."""
        bitfield = Bitfield(count)
        model: set[int] = set()
        for index, put in data.draw(
            st.lists(st.tuples(st.integers(0, count - 1), st.booleans()), max_size=40)
        ):
            (bitfield.set if put else bitfield.clear)(index)
            (model.add if put else model.discard)(index)
        self.assertEqual(sorted(model), list(bitfield))
        self.assertEqual(sorted(set(range(count)) - model), list(bitfield.missing()))
        self.assertEqual(len(model), bitfield.count_set)
        self.assertEqual(len(model) == count, bitfield.complete)
        self.assertEqual(bitfield, Bitfield.from_bytes(bitfield.to_bytes(), count))

    def test_first_piece_is_the_highest_bit(self) -> None:
        """The wire form is that of BEP 3."""
        bitfield = Bitfield(10)
        bitfield.set(0)
        bitfield.set(9)
        self.assertEqual(b"\x80\x40", bitfield.to_bytes())

    def test_wrong_sizes_are_refused(self) -> None:
        """Neither a byte too few nor one too many is a bitfield."""
        for data in (b"", b"\x00", b"\x00\x00\x00"):
            self.assertRaises(MalformedMessage, Bitfield.from_bytes, data, 9)

    def test_spare_bits_are_refused(self) -> None:
        """A bit behind the last piece is a lie or a mistake."""
        self.assertRaises(MalformedMessage, Bitfield.from_bytes, b"\x00\x40", 9)
        self.assertEqual([8], list(Bitfield.from_bytes(b"\x00\x80", 9)))

    def test_indices_do_not_wrap_around(self) -> None:
        """An index out of range is our own bug and loud."""
        bitfield = Bitfield(8)
        for index in (-1, 8):
            for method in (bitfield.has, bitfield.set, bitfield.clear):
                self.assertRaises(LocalProtocolError, method, index)

    def test_copies_are_independent(self) -> None:
        """Changing a copy does not change the original."""
        original = Bitfield(8)
        twin = original.copy()
        twin.set(3)
        self.assertEqual(0, original.count_set)
        self.assertEqual(1, twin.count_set)

    def test_full_set_has_no_spare_bits(self) -> None:
        """The set of all pieces can be sent as it is."""
        self.assertTrue(Bitfield.from_bytes(Bitfield.full(11).to_bytes(), 11).complete)
        self.assertTrue(Bitfield(0).complete)

    def test_largest_content_fits_a_frame(self) -> None:
        """A bitfield of ``limits.PIECES_MAX`` pieces goes into ``limits.CONTROL_FRAME_BYTES``."""
        self.assertLess(len(Bitfield(limits.PIECES_MAX).to_bytes()), limits.CONTROL_FRAME_BYTES)
