"""From a file or folder on this disk to its metadata: what ``p2pdist make`` does.

Job: find the files, refuse what receivers would refuse, hash every piece on all cores; holes of
sparse files are not read. Reads only.
Does NOT write anything and does NOT look after downloads: that is ``storage``. Blocking throughout;
call it from a command or inside ``workers.run``.

Threat: files that change, shrink or are replaced while they are read would give hashes of something
that never existed; FIFOs and devices would hang us. Tests: ``test_source``.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import struct
import threading
from array import array
from bisect import bisect_right
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Final, TypeAlias

from attrs import define, field, frozen

from p2pdist import limits
from p2pdist.content import (
    HASH_BYTES,
    FileList,
    Metadata,
    check_component,
    check_path,
    check_piece_length,
    encode,
    piece_count,
    piece_hasher,
    zero_hash,
)
from p2pdist.errors import ConfigurationError, StorageError, UnsafeName

Progress: TypeAlias = Callable[[int, int], None]
"""Told ``(bytes_done, bytes_total)``, from several threads but one at a time, in rising order."""

_STAMP: Final = struct.Struct("=QQQq")
"""Device, inode, size and mtime in ns: equal means that nothing wrote to the file."""

_OPEN_FLAGS: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
"""A FIFO swapped in for a file is opened without waiting; then its stamp tells."""


@frozen
class Source:
    """A file or folder on this disk that is to be distributed.

    Attributes:
        entries: the files as metadata will list them, one or more.
        location: absolute path of the file or folder.
        stamps: of each file when it was found, one after the other; a change ends the work.
    """

    entries: FileList
    location: str
    stamps: bytes = field(repr=False)

    @property
    def name(self) -> str:
        """What the file or folder will be called."""
        return self.entries[0].path[0]

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder."""
        return len(self.entries[0].path) > 1

    @cached_property
    def length(self) -> int:
        """Bytes of all files together."""
        return sum(self.entries.lengths)

    def location_of(self, file: int) -> str:
        """Return the absolute path of a file here."""
        return os.path.join(self.location, *self.entries[file].path[1:])  # noqa: PTH118 -- hot

    def stamp_of(self, file: int) -> bytes:
        """Return the stamp the file had when it was found."""
        return self.stamps[file * _STAMP.size : (file + 1) * _STAMP.size]


# --- finding ---


def scan(path: str, name: str | None = None) -> Source:
    """Find what a file or folder consists of, without reading any content. Blocks.

    Links to files are followed, links to folders inside are refused (they may lead in circles);
    a link given as ``path`` itself is meant by who gave it. Empty folders are not carried.

    Args:
        path: of the file or folder.
        name: what to call it elsewhere, instead of its own name.

    Raises:
        StorageError: nothing there, unreadable, neither file nor folder, empty, too much.
        UnsafeName: a file has a name that receivers would refuse.
    """
    root = Path(path).absolute()
    if name is None:
        name = root.name if root.name not in {"", ".."} else root.resolve().name
    top = (check_component(name),)
    status = _status(root)
    found = _Found()
    if stat.S_ISREG(status.st_mode):
        found.add(top, status)
    elif stat.S_ISDIR(status.st_mode):
        _walk(root, top, found)
    else:
        raise StorageError(f"{path!r} is neither a file nor a folder")
    if not found.entries:
        raise StorageError(f"{path!r} holds no file")
    source = Source(found.entries, str(root), bytes(found.stamps))
    if source.length > limits.LENGTH_MAX:
        raise StorageError(f"{path!r} is longer than {limits.LENGTH_MAX} bytes")
    return source


@define
class _Found:
    """The files found so far."""

    entries: FileList = field(init=False, factory=FileList)
    stamps: bytearray = field(init=False, factory=bytearray)

    def add(self, path: tuple[str, ...], status: os.stat_result) -> None:
        joined = "/".join(path)
        try:
            check_path(joined)
        except UnsafeName as error:  # the whole path, so that it can be found
            raise UnsafeName(joined, error.reason) from None
        if status.st_size > limits.LENGTH_MAX:
            raise StorageError(f"{joined!r} is longer than {limits.LENGTH_MAX} bytes")
        self.entries.add(joined, status.st_size, executable=bool(status.st_mode & stat.S_IXUSR))
        self.stamps += _stamp(status)


def _walk(folder: Path, inside: tuple[str, ...], found: _Found) -> None:
    """Add the files below a folder, in the order of metadata: a folder sorts as if it ended in /.

    Only the names of the folders on the way down are held at a time.
    """
    if len(inside) >= limits.PATH_DEPTH:
        raise UnsafeName("/".join(inside), f"it is {limits.PATH_DEPTH} folders deep or more")
    statuses = {name: _status(folder / name) for name in _names(folder)}
    folders = {name for name, status in statuses.items() if stat.S_ISDIR(status.st_mode)}
    for name in sorted(statuses, key=lambda name: name + "/" if name in folders else name):
        location, status = folder / name, statuses.pop(name)
        if name in folders:
            if location.is_symlink():
                raise StorageError(f"{str(location)!r} is a link to a folder; copy that here")
            _walk(location, (*inside, name), found)
        elif not stat.S_ISREG(status.st_mode):
            raise StorageError(f"{str(location)!r} is neither a file nor a folder")
        elif len(found.entries) == limits.FILES_MAX:
            raise StorageError(
                f"a folder holds more than {limits.FILES_MAX} files; "
                "distribute its parts, or an archive of it"
            )
        else:
            found.add((*inside, name), status)


def _names(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 -- names are wanted, not paths
    except OSError as error:
        raise _unreadable(str(folder), error) from error


def _status(location: Path) -> os.stat_result:
    try:
        return location.stat()
    except (OSError, ValueError) as error:  # ValueError: NUL inside
        raise _unreadable(str(location), error) from error


def _stamp(status: os.stat_result) -> bytes:
    return _STAMP.pack(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


def _unreadable(location: str, error: OSError | ValueError) -> StorageError:
    reason = error.strerror if isinstance(error, OSError) else str(error)
    return StorageError(f"cannot read {location!r}: {reason}")


# --- reading ---


@define
class _Reader:
    """One thread's view of a source as one run of bytes; keeps the file it read last open."""

    source: Source
    _starts: array[int] = field(init=False)
    _index: int = field(init=False, default=-1)
    _fd: int = field(init=False, default=-1)

    def __attrs_post_init__(self) -> None:
        self._starts = array("Q", accumulate(self.source.entries.lengths, initial=0))

    def read_into(self, view: memoryview, offset: int) -> None:
        """Fill ``view`` with the bytes from ``offset`` on, all of which must lie in the source.

        Raises:
            StorageError: unreadable, or not the file that was found.
        """
        while view:
            # Of files that begin at one place only the last has bytes.
            file = bisect_right(self._starts, offset) - 1
            self._open(file)
            part = view[: self._starts[file + 1] - offset]
            try:
                size = os.preadv(self._fd, [part], offset - self._starts[file])
            except OSError as error:
                raise _unreadable(self.source.location_of(file), error) from error
            if size == 0:
                raise _changed(self.source, file)
            view = view[size:]
            offset += size

    def is_hole(self, offset: int, size: int) -> bool:
        """Tell whether these bytes lie in a hole of one file: zeros that need not be read.

        Raises:
            StorageError: as :meth:`read_into`.
        """
        file = bisect_right(self._starts, offset) - 1
        if offset + size > self._starts[file + 1]:
            return False
        self._open(file)
        return next_data(self._fd, offset - self._starts[file]) >= (
            offset + size - self._starts[file]
        )

    def _open(self, file: int) -> None:
        if file == self._index:
            return
        self.close()
        location = self.source.location_of(file)
        try:
            self._fd = os.open(location, _OPEN_FLAGS)
        except OSError as error:
            raise _unreadable(location, error) from error
        self._index = file
        if _stamp(os.fstat(self._fd)) != self.source.stamp_of(file):
            raise _changed(self.source, file)

    def close(self) -> None:
        """Let go of the open file."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = self._index = -1


def next_data(fd: int, offset: int) -> int:
    """Return where bytes that are no hole may come next; the file's size where none do.

    ``offset`` itself where the file system cannot tell holes from zeros.
    """
    try:
        return os.lseek(fd, offset, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return os.fstat(fd).st_size
        return offset


def _changed(source: Source, file: int) -> StorageError:
    return StorageError(
        f"{source.location_of(file)!r} changed while it was being read; nothing was made"
    )


def _check_unchanged(source: Source) -> None:
    """Compare all stamps with those when the files were found.

    Raises:
        StorageError: something wrote to one of them meanwhile.
    """
    for file in range(len(source.entries)):
        if _stamp(_status(Path(source.location_of(file)))) != source.stamp_of(file):
            raise _changed(source, file)


# --- hashing ---


def build_metadata(
    source: Source, piece_length: int, *, progress: Progress | None = None, threads: int = 1
) -> Metadata:
    """Hash every piece and return the metadata. Blocks.

    Memory: ``limits.HASH_READ_BYTES`` per thread and 32 bytes per piece.

    Args:
        source: what to hash.
        piece_length: see :func:`p2pdist.content.check_piece_length`.
        progress: told after each piece.
        threads: how many hash at the same time; with 1, only the calling one does.

    Raises:
        ConfigurationError: ``piece_length`` does not fit.
        StorageError: unreadable, changed meanwhile, or its metadata would be too large.
    """
    try:
        check_piece_length(piece_length, source.length)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    _check_metadata_size(source, piece_length)
    hashing = _Hashing(source, piece_length, progress)
    if threads == 1:
        hashing.work()
    else:
        _run_together(hashing, min(threads, max(hashing.count, 1)))
    _check_unchanged(source)
    return Metadata(piece_length, source.entries, bytes(hashing.hashes))


def _check_metadata_size(source: Source, piece_length: int) -> None:
    hashes = HASH_BYTES * piece_count(source.length, piece_length)
    size = len(encode(piece_length, source.entries, b"")) + hashes
    components = sum(path.count("/") + 1 for path in source.entries.paths())
    if size > limits.METADATA_BYTES - 8 or components > limits.COMPONENTS_MAX:
        raise StorageError(
            f"{source.name!r} has so many files and folders that its metadata would be too large; "
            "distribute its parts, or an archive of it"
        )


def _run_together(hashing: _Hashing, threads: int) -> None:
    """Let ``threads`` threads work; raise what the first of them raised, when all have ended."""
    with ThreadPoolExecutor(threads, thread_name_prefix="p2pdist-hash") as pool:
        shares = [pool.submit(hashing.work) for _ in range(threads)]
        try:
            for share in shares:
                share.result()
        finally:
            hashing.stopped = True  # also when Ctrl-C ends the waiting


@define
class _Hashing:
    """Hashes of pieces in the making; every thread takes the next piece until none is left.

    Attributes:
        hashes: grows complete in any order; of use when all threads have ended.
        stopped: set by anybody to end all threads soon.
    """

    source: Source
    piece_length: int
    progress: Progress | None
    count: int = field(init=False)
    hashes: bytearray = field(init=False)
    stopped: bool = field(init=False, default=False)
    _next: int = field(init=False, default=0)
    _done_bytes: int = field(init=False, default=0)
    _lock: threading.Lock = field(init=False, factory=threading.Lock)

    def __attrs_post_init__(self) -> None:
        self.count = piece_count(self.source.length, self.piece_length)
        self.hashes = bytearray(HASH_BYTES * self.count)

    def work(self) -> None:
        """Hash pieces until none is left or somebody stopped.

        Raises:
            StorageError: a file is unreadable or changed; the other threads end too.
        """
        reader = _Reader(self.source)
        block = memoryview(bytearray(min(self.piece_length, limits.HASH_READ_BYTES)))
        try:
            while (index := self._take()) is not None:
                self._hash(index, reader, block)
        except BaseException:
            self.stopped = True
            raise
        finally:
            reader.close()

    def _take(self) -> int | None:
        with self._lock:
            if self.stopped or self._next == self.count:
                return None
            self._next += 1
            return self._next - 1

    def _hash(self, index: int, reader: _Reader, block: memoryview) -> None:
        start = index * self.piece_length
        end = min(start + self.piece_length, self.source.length)
        if reader.is_hole(start, end - start):
            found = zero_hash(end - start)
        else:
            hasher = piece_hasher()
            for offset in range(start, end, len(block)):
                view = block[: end - offset]
                reader.read_into(view, offset)
                hasher.update(view)
            found = hasher.digest()
        with self._lock:
            self.hashes[index * HASH_BYTES : (index + 1) * HASH_BYTES] = found
            self._done_bytes += end - start
            if self.progress is not None:
                self.progress(self._done_bytes, self.source.length)


def sha256_of(source: Source, progress: Progress | None = None) -> str:
    """Return what ``sha256sum`` prints for a single file: 64 hexadecimal digits. Blocks.

    Raises:
        ConfigurationError: ``source`` is a folder.
        StorageError: unreadable, or changed meanwhile.
    """
    if source.is_folder:
        raise ConfigurationError("a folder has no SHA-256 sum; its hash_key commits to all of it")
    digest = hashlib.sha256()
    reader = _Reader(source)
    block = memoryview(bytearray(limits.HASH_READ_BYTES))
    try:
        for offset in range(0, source.length, len(block)):
            view = block[: source.length - offset]
            reader.read_into(view, offset)
            digest.update(view)
            if progress is not None:
                progress(offset + len(view), source.length)
    finally:
        reader.close()
    _check_unchanged(source)
    return digest.hexdigest()
