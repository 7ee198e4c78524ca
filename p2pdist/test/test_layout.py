"""Tests of :mod:`p2pdist.storage.layout`."""

from __future__ import annotations

from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.ids import HashKey
from p2pdist.storage.layout import Layout, Segment, part_name, state_name
from p2pdist.test.support import TestCase, given

KEY = HashKey(bytes.fromhex("0123abcd") + bytes(28))


class LayoutTests(TestCase):
    """Files end to end."""

    def test_range_over_several_files(self) -> None:
        """A range takes the end of one file, whole ones, and the beginning of another."""
        layout = Layout([10, 0, 5, 20])
        self.assertEqual(
            [Segment(0, 8, 2), Segment(2, 0, 5), Segment(3, 0, 3)], list(layout.segments(8, 10))
        )

    def test_range_that_begins_with_a_file(self) -> None:
        """Empty files before it do not matter."""
        self.assertEqual([Segment(2, 0, 4)], list(Layout([0, 0, 4, 0]).segments(0, 4)))

    def test_nothing_is_nowhere(self) -> None:
        """An empty range has no segments, not even at the end."""
        self.assertEqual([], list(Layout([4]).segments(4, 0)))
        self.assertEqual([], list(Layout([0]).segments(0, 0)))

    @given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.data())
    def test_segments_are_the_range(self, lengths: list[int], data: st.DataObject) -> None:
        """Byte for byte, the segments are the range, in order, and none is empty."""
        layout = Layout(lengths)
        start = data.draw(st.integers(0, layout.length))
        size = data.draw(st.integers(0, layout.length - start))
        where = [(file, at) for file, length in enumerate(lengths) for at in range(length)]
        segments = list(layout.segments(start, size))
        self.assertEqual(
            where[start : start + size],
            [(s.file, s.offset + step) for s in segments for step in range(s.size)],
        )
        self.assertTrue(all(segment.size > 0 for segment in segments))
        self.assertEqual(sum(lengths), layout.length)
        self.assertEqual(lengths, [layout.length_of(file) for file in range(layout.count)])


class NameTests(TestCase):
    """What our own files are called."""

    def test_names_tell_content_and_kind(self) -> None:
        """Hidden, with name, HASH8 and what it is."""
        self.assertEqual(".a.iso.0123abcd.p2pdist-part", part_name("a.iso", KEY))
        self.assertEqual(".a.iso.0123abcd.p2pdist-state", state_name("a.iso", KEY))

    @given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=255))
    def test_names_stay_within_bounds(self, name: str) -> None:
        """A long name is cut at ``limits.PART_NAME_BYTES``, between characters."""
        made = state_name(name, KEY)
        self.assertLessEqual(len(made.encode()), limits.NAME_BYTES)
        head = made[1:].removesuffix(".0123abcd.p2pdist-state")
        self.assertTrue(name.startswith(head))
        if len(name.encode()) > limits.PART_NAME_BYTES:
            self.assertLess(limits.PART_NAME_BYTES - len(head.encode()), 4)
        else:
            self.assertEqual(name, head)
