"""What the bytes on disk are: hash them piece by piece, compare, rebuild metadata.

Job: keep up to ``limits.DISK_THREADS`` workers busy and tell the progress. Does NOT change anything
on disk. Threat: files that change while they are read (stamps are compared before and after),
and whatever else stands under a name (see ``disk``). Tests: ``test_locate``.
"""

from __future__ import annotations

import errno
import hashlib
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
    FileList,
    Metadata,
    check_component,
    default_piece_length,
    zero_hash,
)
from p2pdist.descriptor import Descriptor
from p2pdist.errors import StorageError, UnsafeName
from p2pdist.ids import HASH_KEY_BYTES, HashKey
from p2pdist.source import Progress
from p2pdist.storage.disk import FileFacts, IDisk, Kind, NotAFile, storage_error
from p2pdist.storage.pieces import Bitfield, Geometry
from p2pdist.storage.place import Place
from p2pdist.storage.tree import FileTree, TooShort
from p2pdist.workers import IWorkers

T = TypeVar("T")
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})
"""Errors that mean "these bytes are not there"; any other is told to people."""
_NO_HASH = bytes(HASH_KEY_BYTES)
_BLOCKS = 4
"""Read by a worker at a time."""


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


def _absent(error: OSError, *, ours: bool) -> bool:
    """Tell whether bytes are not there; of what is ``ours`` those in bad sectors count as such."""
    missing = isinstance(error, TooShort) or error.errno in _ABSENT
    return missing or (ours and error.errno == errno.EIO)


async def hash_pieces(
    workers: IWorkers, tree: FileTree, geometry: Geometry, progress: Progress, *, ours: bool = False
) -> bytes:
    """Return the hashes of all pieces as they are on disk, one after the other.

    Holes are not read. A piece that is not there has a hash of zero bytes, which no piece has; of
    our own part (``ours``) neither is one that cannot be read.

    Raises:
        StorageError: something other than files stands there, or they may not be read.
    """
    hashes = bytearray(_NO_HASH * geometry.count)
    read_bytes = 0

    def put(index: int, found: bytes) -> None:
        hashes[index * HASH_KEY_BYTES : (index + 1) * HASH_KEY_BYTES] = found

    def zeros() -> int:
        size = 0
        for index in tree.holes(geometry.piece_length):
            put(index, zero_hash(geometry.size_of(index)))
            size += geometry.size_of(index)
        return size

    def job(index: int) -> bytes:
        start, size = geometry.offset_of(index), geometry.size_of(index)
        try:
            if ours:
                _forget(tree, start, size)
            return tree.hash(start, size)[0]
        except OSError as error:
            if _absent(error, ours=ours):
                return _NO_HASH
            raise

    def done(index: int, found: bytes) -> None:
        nonlocal read_bytes
        put(index, found)
        read_bytes += geometry.size_of(index)
        progress(read_bytes, geometry.length)

    try:
        read_bytes = await workers.run(zeros)
        unread = hashes[:]
        left = (i for i in range(geometry.count) if not _known(unread, i))
        await in_lanes(workers, left, job, done)
    except OSError as error:
        raise storage_error(error, tree.path) from error
    return bytes(hashes)


def _forget(tree: FileTree, start: int, size: int) -> None:
    """Ask the device for what comes, not the cache.

    After a sync that failed, in a process before, the kernel holds bytes that it takes for written
    and that never reached the device: the next sync would prove nothing about them.
    """
    tree.forget(start, size)


def _known(hashes: bytearray, index: int) -> bool:
    return hashes[index * HASH_KEY_BYTES : (index + 1) * HASH_KEY_BYTES] != _NO_HASH


async def sha256_of(workers: IWorkers, tree: FileTree, go_on: Callable[[], None]) -> str:
    """Return the SHA-256 of a tree's bytes, read block by block; ``go_on`` may raise in between.

    Raises:
        StorageError: they cannot be read.
    """
    digest = hashlib.sha256()
    length = tree.layout.length

    def add(offset: int) -> None:
        end = min(offset + _BLOCKS * limits.HASH_READ_BYTES, length)
        for start in range(offset, end, limits.HASH_READ_BYTES):
            digest.update(tree.read(start, min(limits.HASH_READ_BYTES, end - start)))

    for offset in range(0, length, _BLOCKS * limits.HASH_READ_BYTES):
        go_on()
        await run(workers, tree.path, partial(add, offset))
    return digest.hexdigest()


async def check_sha256(
    workers: IWorkers, tree: FileTree, name: str, expected: str | None, go_on: Callable[[], None]
) -> None:
    """Compare a file's bytes with the descriptor's sha256, if it names one.

    Raises:
        StorageError: it differs, in a sentence of its own, or cannot be read.
    """
    if expected is None:
        return
    found = await sha256_of(workers, tree, go_on)
    if found != expected.lower():
        raise StorageError(
            f"{name} is what hash_key names, but its sha256 is "
            f"{found} and the descriptor says {expected}; one of the two lines "
            f"of the descriptor is wrong. Nothing was changed in {tree.path}"
        )


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
    workers: IWorkers, tree: FileTree, metadata: Metadata, progress: Progress, *, ours: bool = False
) -> Bitfield:
    """Return which pieces of ``metadata`` the tree holds.

    Raises:
        StorageError: as :func:`hash_pieces`.
    """
    geometry = geometry_of(metadata)
    hashes = await hash_pieces(workers, tree, geometry, progress, ours=ours)

    def compare() -> Bitfield:
        have = Bitfield(geometry.count)
        for index in range(geometry.count):
            found = hashes[index * HASH_KEY_BYTES : (index + 1) * HASH_KEY_BYTES]
            if found == metadata.piece_hash(index):
                have.set(index)
        return have

    return await workers.run(compare)


async def good_pieces(
    workers: IWorkers, tree: FileTree, metadata: Metadata, indices: Iterable[int]
) -> list[int]:
    """Return which of these pieces the tree holds; one that cannot be read is none.

    Raises:
        StorageError: as :func:`hash_pieces`.
    """
    geometry = geometry_of(metadata)
    found = []

    def job(index: int) -> bool:
        start, size = geometry.offset_of(index), geometry.size_of(index)
        try:
            _forget(tree, start, size)
            digest, _ = tree.hash(start, size)
        except OSError as error:
            if _absent(error, ours=True):
                return False
            raise
        return digest == metadata.piece_hash(index)

    def done(index: int, good: bool) -> None:
        if good:
            found.append(index)

    try:
        await in_lanes(workers, indices, job, done)
    except OSError as error:
        raise storage_error(error, tree.path) from error
    return found


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
    length = sum(files.lengths)
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
    rebuilding = partial(_rebuild, piece_length, files, hashes, descriptor.hash_key)
    metadata = await place.workers.run(rebuilding)
    if metadata is None:
        return None
    return Survey(metadata, Bitfield.full(metadata.count), stamps)


def _rebuild(
    piece_length: int, files: FileList, hashes: bytes, hash_key: HashKey
) -> Metadata | None:
    """Return the metadata with these parts if that is its name. Slow for many files."""
    for candidate in _flag_variants(files):
        try:
            metadata = Metadata(piece_length, candidate, hashes)
        except (UnsafeName, ValueError):
            return None
        if metadata.hash_key() == hash_key:
            return metadata
    return None


def _flag_variants(files: FileList) -> list[FileList]:
    """The executable flag of a single file is easily lost in a copy, so both are tried."""
    if len(files) > 1 or len(files[0].path) > 1:
        return [files]
    entry = files[0]
    return [FileList([FileEntry(entry.path, entry.length, flag)]) for flag in (False, True)]


def list_files(disk: IDisk, directory: str, top: str, name: str, follow: bool) -> FileList:
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
            path = (check_component(name),)
            return FileList([FileEntry(path, facts.size, bool(facts.mode & 0o100))])
        if facts.kind is not Kind.DIRECTORY:
            raise NotAFile(facts.kind)
        inner = disk.open_root(os.path.join(directory, top)) if follow else None  # noqa: PTH118
        handle = disk.open_directory(root, top) if inner is None else inner
        try:
            found = FileList()
            _walk(disk, handle, (check_component(name),), follow, found)
        finally:
            disk.close(handle)
    finally:
        disk.close(root)
    return found


def _walk(disk: IDisk, folder: int, path: tuple[str, ...], follow: bool, found: FileList) -> None:
    """Add the files below a folder in the order of metadata: a folder sorts as if it ended in /."""
    if len(path) > limits.PATH_DEPTH:
        raise UnsafeName("/".join(path), "too deep")
    inside: list[tuple[str, str, FileFacts]] = []
    for name in disk.names(folder):
        facts = disk.facts_at(folder, name)
        if facts is not None and follow and facts.kind is Kind.SYMLINK:
            aim = disk.facts_at(folder, name, follow=True)
            if aim is None or aim.kind is not Kind.DIRECTORY:  # that stays a link, and is refused
                facts = aim
        if facts is not None:
            inside.append((name + "/" * (facts.kind is Kind.DIRECTORY), name, facts))
    for _, name, facts in sorted(inside, key=lambda item: item[0]):
        if len(found) > limits.FILES_MAX:
            raise ValueError(f"more than {limits.FILES_MAX} files")
        inner = (*path, check_component(name))
        if facts.kind is Kind.FILE:
            found.add("/".join(inner), facts.size, executable=bool(facts.mode & 0o100))
        elif facts.kind is Kind.DIRECTORY:
            handle = disk.open_directory(folder, name)
            try:
                _walk(disk, handle, inner, follow, found)
            finally:
                disk.close(handle)
        else:
            raise NotAFile(facts.kind, inner[1:])
