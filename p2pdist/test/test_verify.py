"""Tests of :mod:`p2pdist.storage.verify`."""

from __future__ import annotations

from p2pdist.content import Metadata
from p2pdist.descriptor import Descriptor
from p2pdist.errors import StorageError
from p2pdist.storage.verify import VerifyResult, verify
from p2pdist.test.storehouse import DATA, PIECE, Storehouse, folder, one_file
from p2pdist.test.support import TestCase


class VerifyTests(TestCase):
    """Looking without touching."""

    def setUp(self) -> None:
        """Put a folder in place."""
        self.house = Storehouse(folder())
        self.disk = self.house.disk
        self.house.put_target()

    def verified(self, subject: Metadata | Descriptor | None = None) -> VerifyResult:
        """Return what is found."""
        subject = subject or self.house.content.metadata
        return self.result_of(verify(self.house.place(), subject, self.house.tell))

    def test_good_content(self) -> None:
        """Nothing is bad, all was read, nothing was written."""
        result = self.verified()
        self.assertTrue(result.ok)
        self.assertEqual((f"{DATA}/tree", 4), (result.path, result.count))
        self.assertEqual((self.house.content.metadata.length,) * 2, self.house.progress[-1])
        self.assertNotIn(self.house.record, self.disk.paths())
        self.assertEqual(0, self.disk.open_handles)

    def test_bad_byte(self) -> None:
        """Its piece and the files that hold part of it are named, although no stamp changed."""
        self.disk.flip(f"{DATA}/tree/b/long", PIECE)
        result = self.verified()
        self.assertFalse(result.ok)
        self.assertEqual((1,), result.bad_pieces)
        self.assertEqual((f"{DATA}/tree/b/long",), result.bad_files)

    def test_missing_and_longer_files(self) -> None:
        """Files without a bad piece may be bad too."""
        self.disk.remove(f"{DATA}/tree/b/empty")
        self.disk.put(f"{DATA}/tree/c", self.house.content.files()["tree/c"] + b"x")
        result = self.verified()
        self.assertEqual((), result.bad_pieces)
        self.assertEqual((f"{DATA}/tree/b/empty", f"{DATA}/tree/c"), result.bad_files)
        self.assertFalse(result.ok)

    def test_without_metadata(self) -> None:
        """They are rebuilt; if that gives another content, it cannot be said where it differs."""
        self.assertTrue(self.verified(self.house.content.descriptor()).ok)
        self.disk.flip(f"{DATA}/tree/c", 0)
        result = self.verified(self.house.content.descriptor())
        self.assertFalse(result.ok)
        self.assertIs(None, result.count)

    def test_metadata_of_the_record(self) -> None:
        """With a record it can be said, for a descriptor as well."""
        self.result_of(self.house.locate())
        self.disk.flip(f"{DATA}/tree/c", 9)
        result = self.verified(self.house.content.descriptor())
        self.assertEqual((2,), result.bad_pieces)

    def test_metadata_of_the_state_file(self) -> None:
        """So it can with a download that goes on beside, unless that is running just now."""
        self.house = Storehouse(one_file())
        store = self.result_of(self.house.create())
        self.house.disk.put(f"{DATA}/file.bin", bytes(self.house.content.metadata.length))
        self.assertIs(None, self.verified(self.house.content.descriptor()).count)
        self.result_of(store.close())
        result = self.verified(self.house.content.descriptor())
        self.assertEqual((0, 1, 2, 3), result.bad_pieces)

    def test_nothing_there(self) -> None:
        """There is a sentence with the path."""
        self.house = Storehouse(one_file())
        for subject in (self.house.content.metadata, self.house.content.descriptor()):
            error = self.error_of(
                verify(self.house.place(), subject, self.house.tell), StorageError
            )
            self.assertIn(f"{DATA}/file.bin does not exist", str(error))
        nameless = self.house.content.descriptor(name=None)
        error = self.error_of(verify(self.house.place(), nameless, self.house.tell), StorageError)
        self.assertIn("no name", str(error))

    def test_named_path(self) -> None:
        """What the operator points at may have any name."""
        self.house = Storehouse(one_file())
        self.house.disk.put("/media/image", self.house.content.data)
        place = self.house.place(path="/media/image")
        descriptor = self.house.content.descriptor()
        result = self.result_of(verify(place, descriptor, self.house.tell))
        self.assertTrue(result.ok)
        self.assertEqual("/media/image", result.path)
