"""What the bytes on disk are: hash them piece by piece, compare, rebuild metadata.

Job: keep up to ``limits.DISK_THREADS`` workers busy and tell the progress. Does NOT change anything
on disk. Threat: files that change while they are read (stamps are compared before and after),
and whatever else stands under a name (see ``disk``). Tests: ``test_locate``.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, TypeVar

from attrs import frozen
from twisted.internet.defer import Deferred, DeferredList
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.content import (
    FileEntry,
    Metadata,
    check_component,
    default_piece_length,
    hash_piece,
)
from p2pdist.descriptor import Descriptor
from p2pdist.errors import StorageError, UnsafeName
from p2pdist.ids import HASH_KEY_BYTES
from p2pdist.source import Progress
from p2pdist.storage.disk import FileFacts, IDisk, Kind, NotAFile, storage_error
from p2pdist.storage.pieces import Bitfield, Geometry
from p2pdist.storage.place import Place
from p2pdist.storage.tree import FileTree
from p2pdist.workers import IWorkers

T = TypeVar("T")
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EIO})
"""Errors that mean "these bytes are not there"; any other is told to people."""
_NO_HASH = bytes(HASH_KEY_BYTES)


async def run(workers: IWorkers, path: str, function: Callable[[], T]) -> T:
    """Run blocking disk work in a worker; its OSError becomes a sentence about ``path``.

    Raises:
        StorageError: for any OSError.
    """
    try:
        return await workers.run(function)
    except OSError as error:
        raise storage_error(error, path) from error


async def in_lanes(
    workers: IWorkers, items: Iterable[int], job: Callable[[int], T], done: Callable[[int, T], None]
) -> None:
    """Run ``job`` for each item in workers, up to ``limits.DISK_THREADS`` at once.

    ``done(item, result)`` is called in the reactor thread. After a failure nothing new is begun;
    it is raised when the last worker has come back, so the caller may close what they used.
    """
    waiting = iter(items)
    failed = False

    async def lane() -> None:
        nonlocal failed
        for item in waiting:
            if failed:
                return
            try:
                result = await workers.run(partial(job, item))
            except BaseException:
                failed = True
                raise
            done(item, result)

    lanes = [Deferred.fromCoroutine(lane()) for _ in range(limits.DISK_THREADS)]
    outcomes: list[tuple[bool, Any]] = await DeferredList(lanes, consumeErrors=True)
    for _, outcome in outcomes:
        if isinstance(outcome, Failure):
            outcome.raiseException()


async def hash_pieces(
    workers: IWorkers, tree: FileTree, geometry: Geometry, progress: Progress
) -> bytes:
    """Return the hashes of all pieces as they are on disk, one after the other.

    A piece that cannot be read has a hash of zero bytes, which is no piece's hash.

    Raises:
        StorageError: something other than files stands there, or they may not be read.
    """
    hashes = bytearray(_NO_HASH * geometry.count)
    read_bytes = 0

    def job(index: int) -> bytes:
        try:
            return hash_piece(tree.read(geometry.offset_of(index), geometry.size_of(index)))
        except OSError as error:
            if error.errno in _ABSENT:
                return _NO_HASH
            raise

    def done(index: int, found: bytes) -> None:
        nonlocal read_bytes
        hashes[index * HASH_KEY_BYTES : (index + 1) * HASH_KEY_BYTES] = found
        read_bytes += geometry.size_of(index)
        progress(read_bytes, geometry.length)

    try:
        await in_lanes(workers, range(geometry.count), job, done)
    except OSError as error:
        raise storage_error(error, tree.path) from error
    return bytes(hashes)


async def target_facts(place: Place, name: str) -> FileFacts | None:
    """Return what stands where the content called ``name`` belongs, or ``None``.

    Raises:
        StorageError: its folder cannot be opened.
    """
    directory, top = place.target(name)

    def look() -> FileFacts | None:
        root = place.disk.open_root(directory)
        try:
            return place.disk.facts_at(root, top, place.path is not None)
        finally:
            place.disk.close(root)

    return await run(place.workers, directory, look)


def geometry_of(metadata: Metadata) -> Geometry:
    """Return how the content is cut."""
    return Geometry(metadata.length, metadata.piece_length)


async def matching_pieces(
    workers: IWorkers, tree: FileTree, metadata: Metadata, progress: Progress
) -> Bitfield:
    """Return which pieces of ``metadata`` the tree holds.

    Raises:
        StorageError: as :func:`hash_pieces`.
    """
    geometry = geometry_of(metadata)
    hashes = await hash_pieces(workers, tree, geometry, progress)
    have = Bitfield(geometry.count)
    for index in range(geometry.count):
        if hashes[index * HASH_KEY_BYTES : (index + 1) * HASH_KEY_BYTES] == metadata.piece_hash(
            index
        ):
            have.set(index)
    return have


@frozen
class Survey:
    """What a target turned out to be.

    Attributes:
        metadata: what it was compared with, or was found to be.
        have: the pieces that match.
        stamps: of its files, if all are there with the right length; they did not change meanwhile.
    """

    metadata: Metadata
    have: Bitfield
    stamps: bytes | None

    @property
    def complete(self) -> bool:
        """Whether it is the content, whole and with nothing behind it."""
        return self.have.complete and self.stamps is not None


async def survey(
    place: Place, metadata: Metadata, progress: Progress, *, all_or_nothing: bool = False
) -> Survey:
    """Compare the target with ``metadata``.

    Args:
        place: where.
        metadata: what it should be.
        progress: bytes hashed and bytes in all.
        all_or_nothing: hash nothing when a file is missing or has another length.

    Raises:
        StorageError: as :func:`hash_pieces`, or a file changed while it was read.
    """
    path = place.target_path(metadata.name)
    opening = partial(place.target_tree, metadata.name, metadata.files)
    tree = await run(place.workers, path, opening)
    try:
        stamps = await run(place.workers, path, partial(_stamps_if_whole, tree))
        if stamps is None and all_or_nothing:
            return Survey(metadata, Bitfield(metadata.count), None)
        have = await matching_pieces(place.workers, tree, metadata, progress)
        await _check_unchanged(place, tree, stamps)
    finally:
        await place.workers.run(tree.close)
    return Survey(metadata, have, stamps)


def _stamps_if_whole(tree: FileTree) -> bytes | None:
    return tree.stamps() if tree.lengths_right() else None


async def _check_unchanged(place: Place, tree: FileTree, before: bytes | None) -> None:
    after = await run(place.workers, tree.path, partial(_stamps_if_whole, tree))
    if before != after:
        raise StorageError(
            f"{tree.path} changed while it was read; try again when nothing writes to it"
        )


async def identify(place: Place, descriptor: Descriptor, progress: Progress) -> Survey | None:
    """Rebuild metadata from the target; return it if it has the descriptor's hash_key.

    ``None`` means "not with these names, flags and piece length", which for a folder, or without
    a piece length in the descriptor, does not yet mean that the content differs.

    Raises:
        StorageError: as :func:`survey`.
    """
    directory, top = place.target(descriptor.name or "")
    name = descriptor.name or top
    path = place.target_path(name)
    follow = place.path is not None
    listing = partial(list_files, place.disk, directory, top, name, follow)
    try:
        files = await run(place.workers, path, listing)
    except (UnsafeName, ValueError):
        return None
    length = sum(entry.length for entry in files)
    if not files or (descriptor.length is not None and descriptor.length != length):
        return None
    piece_length = descriptor.piece_length or default_piece_length(length)
    tree = await run(place.workers, path, partial(place.target_tree, name, files))
    try:
        stamps = await run(place.workers, path, partial(_stamps_if_whole, tree))
        hashes = await hash_pieces(place.workers, tree, Geometry(length, piece_length), progress)
        await _check_unchanged(place, tree, stamps)
    finally:
        await place.workers.run(tree.close)
    for candidate in _flag_variants(files):
        try:
            metadata = Metadata(piece_length, candidate, hashes)
        except (UnsafeName, ValueError):
            return None
        if metadata.hash_key() == descriptor.hash_key:
            return Survey(metadata, Bitfield.full(metadata.count), stamps)
    return None


def _flag_variants(files: tuple[FileEntry, ...]) -> list[tuple[FileEntry, ...]]:
    """The executable flag of a single file is easily lost in a copy, so both are tried."""
    if len(files) > 1 or len(files[0].path) > 1:
        return [files]
    return [(FileEntry(files[0].path, files[0].length, flag),) for flag in (False, True)]


def list_files(
    disk: IDisk, directory: str, top: str, name: str, follow: bool
) -> tuple[FileEntry, ...]:
    """Return the files at a path as a content called ``name`` would hold them. Blocks.

    Args:
        disk: where they are.
        directory: folder the content lies in.
        top: what it is called there.
        name: first component of the entries.
        follow: follow links to files.

    Raises:
        UnsafeName: no content can have such a file name.
        ValueError: more files than a content can have.
        OSError: something is neither file nor folder, or cannot be read.
    """
    root = disk.open_root(directory)
    try:
        facts = disk.facts_at(root, top, follow)
        if facts is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        if facts.kind is Kind.FILE:
            return (FileEntry((check_component(name),), facts.size, bool(facts.mode & 0o100)),)
        if facts.kind is not Kind.DIRECTORY:
            raise NotAFile(facts.kind)
        inner = disk.open_root(os.path.join(directory, top)) if follow else None  # noqa: PTH118
        handle = disk.open_directory(root, top) if inner is None else inner
        try:
            found = _walk(disk, handle, (check_component(name),), follow)
        finally:
            disk.close(handle)
    finally:
        disk.close(root)
    return tuple(sorted(found, key=lambda entry: entry.joined))


def _walk(disk: IDisk, folder: int, path: tuple[str, ...], follow: bool) -> list[FileEntry]:
    if len(path) > limits.PATH_DEPTH:
        raise UnsafeName("/".join(path), "too deep")
    found: list[FileEntry] = []
    for name in disk.names(folder):
        facts = disk.facts_at(folder, name)
        if facts is not None and follow and facts.kind is Kind.SYMLINK:
            aim = disk.facts_at(folder, name, follow=True)
            if aim is None or aim.kind is not Kind.DIRECTORY:  # that stays a link, and is refused
                facts = aim
        if facts is None:
            continue
        if len(found) > limits.FILES_MAX:
            raise ValueError(f"more than {limits.FILES_MAX} files")
        inner = (*path, check_component(name))
        if facts.kind is Kind.FILE:
            found.append(FileEntry(inner, facts.size, bool(facts.mode & 0o100)))
        elif facts.kind is Kind.DIRECTORY:
            handle = disk.open_directory(folder, name)
            try:
                found.extend(_walk(disk, handle, inner, follow))
            finally:
                disk.close(handle)
        else:
            raise NotAFile(facts.kind, inner[1:])
    return found
