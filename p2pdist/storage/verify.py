"""Look at a target and say which of its pieces and files are not as they should be.

Job: for ``p2pdist verify``. Changes nothing, locks nothing, trusts no record. Tests:
``test_verify``.
"""

from __future__ import annotations

from functools import partial

from attrs import frozen
from twisted.internet.defer import Deferred

from p2pdist.content import Metadata
from p2pdist.descriptor import Descriptor
from p2pdist.errors import StorageError
from p2pdist.source import Progress
from p2pdist.storage.locate import known_metadata
from p2pdist.storage.piecefiles import PieceFiles
from p2pdist.storage.pieces import Bitfield
from p2pdist.storage.place import Place
from p2pdist.storage.survey import geometry_of, identify, run, survey, target_facts
from p2pdist.storage.tree import FileTree


@frozen
class VerifyResult:
    """What :func:`verify` found.

    Attributes:
        path: what was looked at.
        count: pieces of the content; ``None`` when the content differs and, without its metadata,
            it cannot be said where.
        bad_pieces: pieces that are not as they should be.
        bad_files: files that are missing, have another length or hold part of a bad piece.
    """

    path: str
    count: int | None
    bad_pieces: tuple[int, ...]
    bad_files: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether all is as it should be."""
        return self.count is not None and not self.bad_pieces and not self.bad_files


def verify(
    place: Place, subject: Metadata | Descriptor, progress: Progress
) -> Deferred[VerifyResult]:
    """Hash the target and compare.

    Args:
        place: where.
        subject: what it should be; for a descriptor, metadata is looked for in the record and the
            state file, else rebuilt from what is there.
        progress: called in the reactor thread with bytes hashed and bytes in all.

    Returns:
        Fires with the result; fails with StorageError when there is nothing to look at, or it
        changed meanwhile.
    """
    return Deferred.fromCoroutine(_verify(place, subject, progress))


async def _verify(place: Place, subject: Metadata | Descriptor, progress: Progress) -> VerifyResult:
    if isinstance(subject, Metadata):
        metadata: Metadata | None = subject
    else:
        metadata = await known_metadata(place, subject)
    name = subject.name if metadata is None else metadata.name
    if name is None:
        raise StorageError(
            "the descriptor has no name, and without metadata that leaves nothing to compare with"
        )
    path = place.target_path(name)
    if await target_facts(place, name) is None:
        raise StorageError(f"{path} does not exist")
    if metadata is None:
        assert isinstance(subject, Descriptor)
        found = await identify(place, subject, progress)
        return VerifyResult(path, None if found is None else found.metadata.count, (), ())
    have = (await survey(place, metadata, progress)).have
    blame = partial(_bad_files, place, metadata, have)
    bad_files = await run(place.workers, path, blame)
    return VerifyResult(path, metadata.count, tuple(have.missing()), bad_files)


def _bad_files(place: Place, metadata: Metadata, have: Bitfield) -> tuple[str, ...]:
    tree = place.target_tree(metadata.name, metadata.files)
    try:
        pieces = PieceFiles(tree, metadata, geometry_of(metadata))
        bad = {file for index in have.missing() for file in pieces.files_of(index)}
        bad.update(file for file in range(tree.layout.count) if not _length_right(tree, file))
        return tuple(tree.path_of(file) for file in sorted(bad))
    finally:
        tree.close()


def _length_right(tree: FileTree, file: int) -> bool:
    try:
        return tree.facts(file).size == tree.files[file].length
    except OSError:
        return False
