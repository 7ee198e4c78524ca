"""Tests of :mod:`p2pdist.storage.records`."""

from __future__ import annotations

import hashlib

from hypothesis import strategies as st

from p2pdist import limits
from p2pdist.ids import HashKey
from p2pdist.storage.disk import STAMP_BYTES
from p2pdist.storage.records import MAGIC, Record, load_record, save_record
from p2pdist.test.simdisk import SimDisk
from p2pdist.test.storehouse import folder
from p2pdist.test.strategies import hostile_msgpack, mutations
from p2pdist.test.support import TestCase, given

CONTENT = folder()
KEY = CONTENT.hash_key
RECORD = Record(CONTENT.metadata, "/data", "tree", b"s" * STAMP_BYTES * len(CONTENT.metadata.files))


class CodecTests(TestCase):
    """Bytes and back."""

    def test_round_trip(self) -> None:
        """A record comes back as it was, for its own content only."""
        self.assertEqual(RECORD, Record.decode(RECORD.encode(), KEY))
        self.assertIs(None, Record.decode(RECORD.encode(), HashKey(bytes(32))))

    @given(st.data())
    def test_damaged_records_do_not_count(self, data: st.DataObject) -> None:
        """Not one byte may differ, nor be missing."""
        encoded = RECORD.encode()
        self.assertIs(None, Record.decode(data.draw(mutations(encoded)), KEY))
        self.assertIs(
            None, Record.decode(encoded[: data.draw(st.integers(0, len(encoded) - 1))], KEY)
        )
        self.assertIs(None, Record.decode(encoded + b"\0", KEY))

    @given(hostile_msgpack())
    def test_hostile_records_do_not_count(self, body: bytes) -> None:
        """Even with a checksum of their own."""
        self.assertIs(None, Record.decode(body, KEY))
        self.assertIs(None, Record.decode(MAGIC + hashlib.sha256(body).digest() + body, KEY))

    def test_stamps_must_be_one_per_file(self) -> None:
        """A record that stamps other files does not count."""
        short = Record(CONTENT.metadata, "/data", "tree", RECORD.stamps[STAMP_BYTES:])
        self.assertIs(None, Record.decode(short.encode(), KEY))


class FileTests(TestCase):
    """Records in the state directory."""

    def setUp(self) -> None:
        """Make one."""
        self.disk = SimDisk()
        self.disk.put_folder("/state")

    def test_saved_records_are_found(self) -> None:
        """Also after a crash, and by their own name only."""
        save_record(self.disk, "/state", KEY, RECORD)
        self.disk.crash(lambda: 0.0)
        self.assertEqual(RECORD, load_record(self.disk, "/state", KEY))
        self.assertIs(None, load_record(self.disk, "/state", HashKey(bytes(32))))
        self.assertEqual([f"/state/complete/{KEY.hex()}"], self.disk.paths())
        self.assertEqual(0o600, self.disk.mode(self.disk.paths()[0]))
        self.assertEqual(0, self.disk.open_handles)

    def test_no_state_directory_no_record(self) -> None:
        """Nothing is found where nothing is, and saving says so."""
        self.assertIs(None, load_record(self.disk, "/nowhere", KEY))
        self.assertIs(None, load_record(self.disk, "/state", KEY))
        self.assertRaises(OSError, save_record, self.disk, "/nowhere", KEY, RECORD)

    def test_too_large_records_do_not_count(self) -> None:
        """More than ``limits.RECORD_BYTES`` is not even read to its end."""
        save_record(self.disk, "/state", KEY, RECORD)
        self.patch(limits, "RECORD_BYTES", len(RECORD.encode()) - 1)
        self.assertIs(None, load_record(self.disk, "/state", KEY))
        self.assertEqual(0, self.disk.open_handles)
