"""A published content whose disk lost bytes becomes a download again, in its place.

Only what nobody touched: every file still has the stamps it was published with, so what is wrong
was done by the disk, and what is written back is what was there. Somebody's change, what the
operator pointed at (``seed --path``) and read-only media are left as they are.

The state file of a download is made beside the content again, with the bits of what is left; when
the last piece is back, publishing ends as ever. A crash in between leaves content and state file:
the next start hashes all of it and goes on, if nothing but the missing pieces is wrong.

Job: open what mending needs, blocking. Does NOT write pieces. Threat: changes that only look like
damage; so stamps are compared first, and at a restart every piece that had a bit has to be good.
Tests: ``test_mending``.
"""

from __future__ import annotations

from attrs import frozen

from p2pdist.content import Metadata
from p2pdist.errors import StorageError
from p2pdist.storage.layout import state_name
from p2pdist.storage.pieces import Bitfield
from p2pdist.storage.place import Place
from p2pdist.storage.statefile import StateFile
from p2pdist.storage.tree import FileTree, identity


@frozen
class Mending:
    """What a store needs to write to a content in its final place.

    Attributes:
        state: the state file, new and locked.
        tree: the files, for writing.
    """

    state: StateFile
    tree: FileTree

    def close(self) -> None:
        """Give back what was opened."""
        self.tree.close()
        self.state.close()


def begin(place: Place, metadata: Metadata, stamps: bytes, have: Bitfield) -> Mending:
    """Open a damaged content for mending.

    Args:
        place: where it is.
        metadata: of it.
        stamps: of its files when it was published.
        have: the pieces that are not damaged.

    Raises:
        StorageError: somebody changed it since, or it is not ours to write to.
        AlreadyRunning: another process mends it.
        OSError: it cannot be written to.
    """
    path = place.target_path(metadata.name)
    if place.path is not None:
        raise StorageError(f"{path} is damaged; what --path names is only read")
    hash_key = metadata.hash_key()
    tree = FileTree(place.disk, place.directory, metadata.name, metadata.files, writable=True)
    try:
        _check_untouched(tree, stamps)
        _open_for_writing(tree, metadata, have)
        name = state_name(metadata.name, hash_key)
        state = StateFile.open(place.disk, place.directory, name, hash_key, create=True)
        assert state is not None
        try:
            state.begin(metadata)
            state.save(identity(stamps), have)
            place.disk.sync(tree.root)  # its name, before anything is written to the content
        except BaseException:
            state.close()
            raise
    except BaseException:
        tree.close()
        raise
    return Mending(state, tree)


def _check_untouched(tree: FileTree, stamps: bytes) -> None:
    if tree.stamps() != stamps:
        raise StorageError(f"{tree.path} was changed after completion")


def _open_for_writing(tree: FileTree, metadata: Metadata, have: Bitfield) -> None:
    """Try each file that has to be written to: one that runs, or is read-only, refuses now."""
    for index in have.missing():
        start = index * metadata.piece_length
        size = min(metadata.piece_length, metadata.length - start)
        for segment in tree.layout.segments(start, size):
            with tree.borrow(segment.file):
                pass
