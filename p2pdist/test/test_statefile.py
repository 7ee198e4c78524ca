"""Tests of :mod:`p2pdist.storage.statefile`."""

from __future__ import annotations

import random

from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.errors import AlreadyRunning
from p2pdist.ids import HashKey
from p2pdist.storage.pieces import Bitfield
from p2pdist.storage.statefile import (
    StateFile,
    decode_slot,
    encode_slot,
    slot_bytes,
    slot_offsets,
)
from p2pdist.test.simdisk import SimDisk
from p2pdist.test.storehouse import Content, one_file
from p2pdist.test.support import TestCase, given

KEY = HashKey(bytes(range(32)))
PART = b"identity of the part".ljust(32)
OTHER = b"identity of another part".ljust(32)
CONTENT = one_file()


def bits(*indices: int, count: int = 4) -> Bitfield:
    """Return a set of pieces."""
    bitfield = Bitfield(count)
    for index in indices:
        bitfield.set(index)
    return bitfield


def opened(disk: SimDisk, made: Content = CONTENT, *, create: bool = False) -> StateFile:
    """Open the state file."""
    state = StateFile.open(disk, "/data", "state", made.hash_key, create=create)
    assert state is not None
    return state


class SlotTests(TestCase):
    """One slot."""

    def test_round_trip(self) -> None:
        """Generation and bits come back, for the same content and part only."""
        slot = encode_slot(KEY, PART, 7, bits(0, 3))
        self.assertEqual((7, bits(0, 3)), decode_slot(slot, KEY, PART, 4))
        self.assertEqual(slot_bytes(4), len(slot))
        self.assertIs(None, decode_slot(slot, KEY, OTHER, 4))
        self.assertIs(None, decode_slot(slot, HashKey(bytes(32)), PART, 4))
        self.assertIs(None, decode_slot(slot, KEY, PART, 12))

    @given(st.integers(0, slot_bytes(20) - 1), st.integers(1, 255))
    def test_any_changed_byte_voids_it(self, place: int, flip: int) -> None:
        """A damaged slot is no slot."""
        slot = bytearray(encode_slot(KEY, PART, 3, bits(5, 19, count=20)))
        slot[place] ^= flip
        self.assertIs(None, decode_slot(bytes(slot), KEY, PART, 20))

    @given(st.binary(max_size=80), st.integers(0, 300))
    def test_anything_else_is_no_slot(self, data: bytes, count: int) -> None:
        """Whatever stands there, nothing is raised."""
        self.assertIs(None, decode_slot(data, KEY, PART, count))

    def test_spare_bits_void_it(self) -> None:
        """A slot whose checksum is right but whose bits are not is no slot either."""
        wide = bits(0, 1, 2, 3, 7, count=8)
        self.assertIs(None, decode_slot(encode_slot(KEY, PART, 1, wide), KEY, PART, 4))

    def test_slots_do_not_share_a_page(self) -> None:
        """They begin at multiples of ``limits.STATE_ALIGN_BYTES``, so one torn page hurts one."""
        for length, count in ((1, 1), (limits.STATE_ALIGN_BYTES, 1 << 19), (99999, 0)):
            first, second = slot_offsets(length, count)
            self.assertEqual(0, first % limits.STATE_ALIGN_BYTES)
            self.assertEqual(0, second % limits.STATE_ALIGN_BYTES)
            self.assertGreaterEqual(first, length + 52)
            self.assertGreaterEqual(second, first + slot_bytes(count))


class StateFileTests(TestCase):
    """The file."""

    def setUp(self) -> None:
        """Begin one."""
        self.disk = SimDisk()
        self.disk.put_folder("/data")
        state = opened(self.disk, create=True)
        self.assertIs(None, state.metadata)
        state.begin(CONTENT.metadata)
        self.disk.sync_all(self.disk.open_root("/"))
        self.state = state

    def again(self) -> StateFile:
        """Open it as the next process does."""
        self.disk.kill()
        return opened(self.disk)

    def test_is_private(self) -> None:
        """Nobody else reads what we download."""
        self.assertEqual(0o600, self.disk.mode("/data/state"))

    def test_keeps_metadata_and_bits(self) -> None:
        """The next process knows both."""
        self.state.save(PART, bits(1))
        self.state.save(PART, bits(1, 2))
        state = self.again()
        self.assertEqual(CONTENT.metadata, state.metadata)
        self.assertEqual(bits(1, 2), state.load(PART))

    def test_has_no_bits_for_another_part(self) -> None:
        """Bits belong to the part they were written for."""
        self.state.save(PART, bits(1))
        self.assertIs(None, self.again().load(OTHER))

    def test_begins_without_bits(self) -> None:
        """There are none before the first save, and none after clear."""
        self.assertIs(None, self.again().load(PART))
        state = self.again()
        state.save(PART, bits(1))
        state.save(PART, bits(2))
        state.clear()
        self.assertIs(None, self.again().load(PART))

    def test_torn_write_leaves_the_bits_before(self) -> None:
        """However much of a slot reaches the disk, the one before or after it is there."""
        for seed in range(40):
            rng = random.Random(seed)
            self.setUp()
            saved = [bits(0)]
            self.state.save(PART, saved[0])
            for index in range(rng.randrange(4)):
                saved.append(bits(0, index))
                self.state.save(PART, saved[-1])
            self.disk.failures[len(self.disk.calls) + 1] = 5  # the sync, not the write
            self.disk.failures[len(self.disk.calls) + 3] = 5
            for _ in range(rng.randrange(1, 3)):
                self.assertRaises(OSError, self.state.save, PART, bits(3))
            self.disk.crash(rng.random)
            self.assertIn(opened(self.disk).load(PART), [saved[-1], bits(3)])

    def test_failed_save_does_not_touch_the_last_good_slot(self) -> None:
        """A slot in doubt is written again; the other one stays as it is."""
        self.state.save(PART, bits(0))
        good = self.disk.get("/data/state")
        for _ in range(3):
            self.disk.failures[len(self.disk.calls) + 1] = 5
            self.assertRaises(OSError, self.state.save, PART, bits(1))
        first, second = slot_offsets(len(CONTENT.metadata.encode()), 4)
        after = self.disk.get("/data/state")
        self.assertEqual(good[first:second], after[first:second])

    @given(st.integers(0, 9000), st.integers(1, 255))
    def test_damage_is_never_believed(self, place: int, flip: int) -> None:
        """With any byte changed there are the right bits, older ones or none."""
        self.setUp()
        self.state.save(PART, bits(0))
        self.state.save(PART, bits(0, 1))
        data = bytearray(self.disk.get("/data/state"))
        data[place % len(data)] ^= flip
        self.disk.put("/data/state", bytes(data))
        state = self.again()
        if state.metadata is not None:
            self.assertEqual(CONTENT.metadata, state.metadata)
            self.assertIn(state.load(PART), [None, bits(0), bits(0, 1)])

    @given(st.binary(max_size=200) | st.just(b"p2pdist state 2\n" + bytes(200)))
    def test_other_files_have_no_metadata(self, data: bytes) -> None:
        """Neither an older nor a newer version nor garbage is believed, or fails."""
        self.disk.put("/data/state", data)
        self.assertIs(None, self.again().metadata)

    def test_cut_anywhere(self) -> None:
        """A file that ends too early has no metadata or no bits."""
        self.state.save(PART, bits(0))
        whole = self.disk.get("/data/state")
        for end in range(0, len(whole), 97):
            self.disk.put("/data/state", whole[:end])
            state = self.again()
            self.assertIn(state.metadata, (None, CONTENT.metadata))
            if state.metadata is not None:
                self.assertIn(state.load(PART), (None, bits(0)))

    def test_unreadable_slot_is_no_slot(self) -> None:
        """EIO in one of them leaves the other."""
        self.state.save(PART, bits(0))
        self.state.save(PART, bits(0, 1))
        state = self.again()
        self.disk.failures[len(self.disk.calls) + 1] = 5
        self.assertEqual(bits(0), state.load(PART))

    def test_is_locked(self) -> None:
        """Two processes cannot have it, and the second is told where."""
        error = self.assertRaises(AlreadyRunning, opened, self.disk)
        self.assertIn("/data/state", str(error))
        self.state.close()
        opened(self.disk)

    def test_lock_of_a_removed_file_is_worth_nothing(self) -> None:
        """Who removes it keeps others out, and they then make their own."""
        self.state.remove()
        self.assertIs(
            None, StateFile.open(self.disk, "/data", "state", CONTENT.hash_key, create=False)
        )
        self.assertIs(None, opened(self.disk, create=True).metadata)

    def test_stays_within_reserved_space(self) -> None:
        """Bits can be saved on a full disk: their space was taken at the beginning."""
        self.disk.capacity = 0
        self.state.save(PART, bits(0))
        self.state.save(PART, bits(1))
        self.assertEqual(bits(1), self.again().load(PART))
