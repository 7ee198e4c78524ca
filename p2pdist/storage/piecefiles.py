"""Pieces in files: the blocking half of a store, which keeps no state.

Job: check a piece against its hash on its way to disk and back. Does NOT know which pieces are
here. All methods that touch files block and run in workers. Tests: ``test_store``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from attrs import field, frozen

from p2pdist.content import Metadata, hash_piece
from p2pdist.errors import HashMismatch
from p2pdist.storage.effort import Spent
from p2pdist.storage.loan import Loan
from p2pdist.storage.pieces import Geometry
from p2pdist.storage.tree import FileTree


@frozen
class Fetched:
    """What was read for serving.

    Attributes:
        changed: files that look different than expected, with the stamps they have now.
        data: the bytes, or where they lie; ``None`` when their piece is not what it should be.
    """

    changed: dict[int, bytes]
    data: bytes | Loan | None


@frozen
class PieceFiles:
    """The pieces of ``metadata`` in the files of ``tree``.

    Attributes:
        tree: the files.
        metadata: what the pieces should be.
        geometry: how they are cut.
    """

    tree: FileTree
    metadata: Metadata = field(repr=False)
    geometry: Geometry

    def matches(self, index: int, data: bytes | memoryview) -> bool:
        """Tell whether ``data`` is the piece, in size and hash. Touches no file."""
        right_size = len(data) == self.geometry.size_of(index)
        return right_size and hash_piece(data) == self.metadata.piece_hash(index)

    def files_of(self, index: int) -> list[int]:
        """Return the files the piece lies in. Touches none of them."""
        return self.files_in(index, 0, self.geometry.size_of(index))

    def files_in(self, index: int, offset: int, size: int) -> list[int]:
        """Return the files that part of a piece lies in. Touches none of them."""
        segments = self.tree.layout.segments(self.geometry.offset_of(index) + offset, size)
        return [segment.file for segment in segments]

    def pieces_of(self, file: int) -> range:
        """Return the pieces that lie in a file, or begin or end there."""
        layout = self.tree.layout
        return self.geometry.covering(layout.start_of(file), layout.length_of(file))

    def read(self, index: int) -> bytes:
        """Return the whole piece as it is on disk.

        Raises:
            OSError: some of it cannot be read.
        """
        return self.tree.read(self.geometry.offset_of(index), self.geometry.size_of(index))

    def write(
        self, index: int, data: bytes | memoryview, timer: Callable[[], float] = lambda: 0.0
    ) -> Spent:
        """Check the piece in memory, then write it; return what that took by ``timer``.

        Raises:
            HashMismatch: nothing is written.
            OSError: any part of it may be written.
        """
        start = timer()
        if not self.matches(index, data):
            raise HashMismatch(index)
        checked = timer()
        self.tree.write(self.geometry.offset_of(index), data)
        return Spent(checked - start, timer() - checked)

    def sync(self, indices: Iterable[int]) -> None:
        """Make pieces durable.

        Raises:
            OSError: nothing is known of any of them then.
        """
        self.tree.sync_data({file for index in indices for file in self.files_of(index)})

    def forget(self, index: int) -> None:
        """Let the next read of a piece come from the device, as far as that can be asked.

        Raises:
            OSError: its files cannot be opened.
        """
        self.tree.forget(self.geometry.offset_of(index), self.geometry.size_of(index))

    def there(self, index: int) -> bool:
        """Read a piece from the device, as far as possible, and tell whether it is good.

        Raises:
            OSError: some of it cannot be read.
        """
        self.forget(index)
        return self.matches(index, self.read(index))

    def write_again(self, index: int) -> bool:
        """Read a piece from the device, as far as possible, and write it back if it is good.

        Raises:
            OSError: some of it cannot be read or written.
        """
        self.forget(index)
        data = self.read(index)
        if not self.matches(index, data):
            return False
        self.tree.write(self.geometry.offset_of(index), data)
        return True

    def fetch(
        self,
        index: int,
        offset: int,
        size: int,
        stamps: dict[int, bytes],
        verified: bool,
        lend: bool,
        fresh: bool = False,
    ) -> Fetched:
        """Read part of a piece, checking all of it unless that is known to be needless.

        Args:
            index: the piece.
            offset: in the piece.
            size: bytes wanted.
            stamps: how the stamps of the piece's files should begin; of a verified piece those of
                the files in the range are enough.
            verified: the piece was good when its files had the stamps expected of them.
            lend: lend the bytes instead, if that can be done.
            fresh: ask the device, not the cache.

        Raises:
            OSError: some of it cannot be read.
        """
        if fresh:
            self.forget(index)
        changed = {}
        for file, expected in stamps.items():
            with self.tree.borrow(file) as handle:
                stamp = self.tree.disk.facts(handle).stamp
            if not stamp.startswith(expected):
                changed[file] = stamp
        start = self.geometry.offset_of(index)
        if verified and not changed:
            loan = self.tree.lend(start + offset, size) if lend else None
            return Fetched(changed, loan or self.tree.read(start + offset, size))
        wanted = slice(offset, offset + size)
        found, data = self.tree.hash(start, self.geometry.size_of(index), wanted)
        return Fetched(changed, data if found == self.metadata.piece_hash(index) else None)
