"""Resuming: what was written and not yet recorded is found again (``storage.part``)."""

from __future__ import annotations

import errno

from p2pdist import limits
from p2pdist.storage.store import Store
from p2pdist.test.storehouse import PIECE, Content, Storehouse, content, folder, one_file
from p2pdist.test.support import TestCase


class ResumeTests(TestCase):
    """A process was killed before its last pieces were recorded."""

    def killed(self, made: Content, synced: tuple[int, ...], unsynced: tuple[int, ...]) -> None:
        """Write pieces, of which only the first ones are recorded; kill the process."""
        self.house = Storehouse(made)
        store = self.result_of(self.house.create())
        for index in synced:
            self.result_of(store.write_piece(index, made.piece(index)))
        self.result_of(store.sync())
        for index in unsynced:
            self.result_of(store.write_piece(index, made.piece(index)))
        self.house.disk.kill()
        self.house.restart()

    def start(self) -> Store:
        """Start the next process."""
        store = self.result_of(self.house.locate())
        assert store is not None
        return store

    def test_unrecorded_pieces_are_found(self) -> None:
        """What was written counts, recorded or not, in a file and in a folder."""
        for made in (one_file(), folder()):
            self.killed(made, (0,), (2, 3))
            self.assertEqual([0, 2, 3], list(self.start().have))

    def test_what_was_never_written_is_not_read(self) -> None:
        """Space that was reserved ahead costs no hashing, nor do recorded pieces."""
        made = content({"file.bin": 50 * PIECE})
        self.killed(made, (3, 4), (17,))
        self.start()
        reads = [call for call in self.house.disk.calls if call.endswith(f" {17 * PIECE}+{PIECE}")]
        self.assertEqual(1, len(reads))
        inside = [call for call in self.house.disk.calls if call.endswith(f"+{PIECE}")]
        self.assertEqual(reads, [call for call in inside if call.startswith("read")])

    def test_found_pieces_are_durable_before_their_bits(self) -> None:
        """They may be in the cache only: the start syncs them, and then no crash loses them."""
        self.killed(one_file(), (0,), (1,))
        self.start()
        self.house.disk.crash(lambda: 0.0)
        self.house.restart()
        self.house.disk.calls.clear()
        self.assertEqual([0, 1], list(self.start().have))
        self.assertEqual(0, self.house.disk.count("sync_data"), "nothing was new")

    def test_torn_piece_is_not_believed(self) -> None:
        """A piece that was half written is missing."""
        self.killed(one_file(), (0,), (1, 2))
        changes = self.house.disk.unsynced_changes()
        kept = iter([0.0 if change.offset == PIECE else 1.0 for change in changes])
        self.house.disk.crash(lambda: next(kept))
        self.assertEqual([0, 2], list(self.start().have))

    def test_unreadable_piece_is_no_obstacle(self) -> None:
        """EIO where there is no bit yet only means that the piece is missing."""
        self.killed(one_file(), (0,), (1, 2))
        self.house.disk.failing["read"] = [0] * 4 + [errno.EIO]
        found = list(self.start().have)
        self.assertIn(0, found)
        self.assertEqual(2, len(found))

    def test_work_is_bounded(self) -> None:
        """No more than ``limits.RESUME_HASH_BYTES`` are hashed, whatever the file system says."""
        self.patch(limits, "RESUME_HASH_BYTES", 2 * PIECE)
        made = content({"file.bin": 20 * PIECE})
        self.killed(made, (0,), tuple(range(5, 12)))
        self.house.disk.unsupported.add("next_data")  # then everything may be data
        self.assertEqual([0], list(self.start().have))
        self.killed(made, (0,), tuple(range(5, 12)))
        self.assertEqual([0, 5, 6], list(self.start().have))
