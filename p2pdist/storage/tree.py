"""A content's files on disk, read and written as one run of bytes.

Job: open files component by component below one folder, keep up to ``limits.OPEN_FILES`` of them
open, and spread a range of the content over them. Does NOT know pieces, hashes or which bytes are
good. Threat: see ``disk``; names come from verified metadata, but what stands under them is
whatever a local user put there. Tests: ``test_tree``.

Methods block and may be called from several workers at once. A handle in use is never closed:
what the cache drops while it is in use is closed by its last user.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

from attrs import define, field

from p2pdist import limits
from p2pdist.content import FileEntry, FileList, piece_hasher
from p2pdist.storage.disk import (
    IDENTITY_BYTES,
    STAMP_BYTES,
    Access,
    FileFacts,
    IDisk,
    Kind,
    NotAFile,
)
from p2pdist.storage.layout import Layout
from p2pdist.storage.loan import Loan, Part


class TooShort(OSError):
    """A file ends before the bytes that should be in it; EIO, as of a sector that is not there."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.EIO, f"{path} is too short")


@define(eq=False)
class _Open:
    """A cached handle and how many are using it."""

    handle: int
    users: int = 0
    dropped: bool = False


@define(eq=False)
class FileTree:
    """The files of one content below one folder.

    Args:
        disk: where they are.
        directory: the folder's path; opened once, links followed.
        top: what the file, or the folder of files, is called there.
        files: the content's files; their first component is replaced by ``top``.
        writable: files are opened for writing too.
        follow: links to files are followed; only for what the operator named himself.

    Raises:
        OSError: the folder cannot be opened.
    """

    disk: IDisk
    directory: str
    top: str
    files: Sequence[FileEntry] = field(repr=False)
    writable: bool = field(kw_only=True, default=False)
    follow: bool = field(kw_only=True, default=False)
    layout: Layout = field(init=False, repr=False)
    _root: int | None = field(init=False, default=None, repr=False)
    _cache: OrderedDict[int, _Open] = field(init=False, factory=OrderedDict, repr=False)
    _chain: list[tuple[str, int]] = field(init=False, factory=list, repr=False)
    _lock: threading.RLock = field(init=False, factory=threading.RLock, repr=False)

    def __attrs_post_init__(self) -> None:
        files = self.files
        lengths = files.lengths if isinstance(files, FileList) else (e.length for e in files)
        self.layout = Layout(lengths)
        self._root = self.disk.open_root(self.directory)

    @property
    def root(self) -> int:
        """The handle of the folder the content lies in.

        Raises:
            OSError: the tree has rested, and the folder cannot be opened again.
        """
        with self._lock:
            if self._root is None:
                self._root = self.disk.open_root(self.directory)
            return self._root

    @property
    def path(self) -> str:
        """Return the path of the file, or of the folder of files."""
        return os.path.join(self.directory, self.top)  # noqa: PTH118 -- text for people

    @property
    def is_folder(self) -> bool:
        """Whether the content is a folder."""
        return len(self.files) != 1 or len(self.files[0].path) > 1

    def path_of(self, file: int) -> str:
        """Return a file's path, for errors."""
        return os.path.join(self.directory, *self._components(file))  # noqa: PTH118

    def _components(self, file: int) -> tuple[str, ...]:
        return (self.top, *self.files[file].path[1:])

    # --- handles ---

    def _descend(self, components: tuple[str, ...], make: bool = False) -> int:
        """Return the handle of a folder below the root; the way there stays open for the next.

        Files come sorted by path, so neighbours share most of their way.
        """
        shared = 0
        while shared < min(len(components), len(self._chain)):
            if self._chain[shared][0] != components[shared]:
                break
            shared += 1
        self._close_chain(shared)
        for name in components[shared:]:
            parent = self._chain[-1][1] if self._chain else self.root
            if make and self.disk.facts_at(parent, name) is None:
                self.disk.make_directory(parent, name)
            if self.follow and not self._chain:
                handle = self.disk.open_root(self.path)  # the operator's own link is followed
            else:
                handle = self.disk.open_directory(parent, name)
            self._chain.append((name, handle))
        return self._chain[-1][1] if self._chain else self.root

    def _close_chain(self, keep: int = 0) -> None:
        while len(self._chain) > keep:
            self.disk.close(self._chain.pop()[1])

    def _open(self, file: int, make: bool = False) -> int:
        *folders, name = self._components(file)
        parent = self._descend(tuple(folders), make)
        access = Access.UPDATE if self.writable else Access.READ
        try:
            return self.disk.open_file(parent, name, access, self.follow)
        except FileNotFoundError:
            if not make:
                raise
            return self.disk.open_file(parent, name, Access.CREATE)

    @contextmanager
    def borrow(self, file: int) -> Iterator[int]:
        """Lend the handle of a file.

        Raises:
            OSError: it cannot be opened.
        """
        with self._lock:
            entry = self._cache.get(file)
            if entry is None:
                entry = self._cache[file] = _Open(self._open(file))
            self._cache.move_to_end(file)
            entry.users += 1
            self._trim(limits.OPEN_FILES)
        try:
            yield entry.handle
        finally:
            with self._lock:
                entry.users -= 1
                if entry.dropped and not entry.users:
                    self.disk.close(entry.handle)

    def _trim(self, keep: int) -> None:
        """Drop the handles that were not used for longest."""
        while len(self._cache) > keep:
            _, entry = self._cache.popitem(last=False)
            entry.dropped = True
            if not entry.users:
                self.disk.close(entry.handle)

    def move(self, top: str, rename: Callable[[], None]) -> None:
        """Rename the tree on disk by calling ``rename``; nobody opens a file meanwhile."""
        with self._lock:
            rename()
            self.top = top
            self._close_chain()

    def seal(self) -> None:
        """Open files for reading only from now on: an executable open for writing cannot run."""
        with self._lock:
            self.writable = False
            self._trim(0)

    def rest(self) -> None:
        """Give back the handles that nobody uses now; what is needed again is opened again.

        Only of a tree that is read: a thousand seeds must not hold a thousand handles.
        """
        if not self.writable:
            self.close()

    def close(self) -> None:
        """Give all handles back; call when no other call is under way."""
        with self._lock:
            self._trim(0)
            self._close_chain()
            if self._root is not None:
                self.disk.close(self._root)
                self._root = None

    # --- bytes ---

    def read(self, offset: int, size: int) -> bytes:
        """Return ``size`` bytes of the content.

        Raises:
            TooShort: a file ends too early.
            OSError: what opening or reading raised.
        """
        chunks = []
        for segment in self.layout.segments(offset, size):
            with self.borrow(segment.file) as handle:
                chunk = self.disk.read(handle, segment.offset, segment.size)
            if len(chunk) != segment.size:
                raise TooShort(self.path_of(segment.file))
            chunks.append(chunk)
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def lend(self, offset: int, size: int) -> Loan | None:
        """Return ``size`` bytes of the content where they lie, in memory as far as that goes.

        ``None`` where they cannot be sent from there.

        Raises:
            OSError: as :meth:`read`.
        """
        with ExitStack() as borrowed:
            parts = []
            for segment in self.layout.segments(offset, size):
                handle = borrowed.enter_context(self.borrow(segment.file))
                there = self.disk.warm(handle, segment.offset, segment.size)
                if there is None:
                    return None
                if there != segment.size:
                    raise TooShort(self.path_of(segment.file))
                parts.append(Part(handle, segment.offset, segment.size))
            return Loan(tuple(parts), borrowed.pop_all().close)

    def hash(self, offset: int, size: int, keep: slice = slice(0)) -> tuple[bytes, bytes]:
        """Return the hash of ``size`` bytes and, of those, the ones in ``keep``.

        Holds no more than ``limits.HASH_READ_BYTES`` of them and what is kept.

        Raises:
            OSError: as :meth:`read`.
        """
        hasher = piece_hasher()
        kept = bytearray()
        for start in range(0, size, limits.HASH_READ_BYTES):
            block = self.read(offset + start, min(limits.HASH_READ_BYTES, size - start))
            hasher.update(block)
            kept += block[max(keep.start or 0, start) - start : max(keep.stop - start, 0)]
        return hasher.digest(), bytes(kept)

    def holes(self, piece_length: int, *, reserved: bool = False) -> Iterator[int]:
        """Yield the pieces of so many bytes that lie in holes of files that have any.

        What the file system tells of holes is believed, as the zeros would be when read. Space
        reserved ahead and never written is told as a hole too; with ``reserved`` it is asked for.

        Raises:
            OSError: a file cannot be opened.
        """
        for file in range(self.layout.count):
            length = self.layout.length_of(file)
            if length < piece_length or not (reserved or self._is_sparse(file)):
                continue
            with self.borrow(file) as handle:
                yield from self._holes(handle, file, piece_length)

    def _is_sparse(self, file: int) -> bool:
        try:
            found = self.facts(file)
        except (FileNotFoundError, NotADirectoryError):
            return False
        return found.allocated < found.size

    def _holes(self, handle: int, file: int, piece_length: int) -> Iterator[int]:
        start = self.layout.start_of(file)
        end = start + min(self.layout.length_of(file), self.disk.facts(handle).size)
        index = -(-start // piece_length)
        while index * piece_length < end:
            data = start + self.disk.next_data(handle, index * piece_length - start)
            # The piece that holds the next data is none; the content's last may be short.
            last = data >= end == self.layout.length
            after = self.layout.length - 1 if last else min(data, end)
            full = after // piece_length + last
            yield from range(index, full)
            index = full + 1

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """Write ``data`` into the files it belongs to.

        Raises:
            OSError: any part of it may have been written.
        """
        view = memoryview(data)
        for segment in self.layout.segments(offset, len(data)):
            with self.borrow(segment.file) as handle:
                self.disk.write(handle, segment.offset, view[: segment.size])
            view = view[segment.size :]

    def forget(self, offset: int, size: int) -> None:
        """Let the next read of a range come from the device, as far as that can be asked."""
        for segment in self.layout.segments(offset, size):
            with self.borrow(segment.file) as handle:
                self.disk.forget(handle)

    def sync_data(self, files: Iterable[int]) -> None:
        """Make the bytes of these files durable.

        Raises:
            OSError: nothing is known of any of them then.
        """
        self._sync_many(sorted(files), self.disk.sync_data)

    def _sync_many(self, files: list[int], sync: Callable[[int], None]) -> None:
        # One syncfs is cheaper than thousands of journal commits, and covers more.
        if len(files) > limits.OPEN_FILES:
            try:
                self.disk.sync_all(self.root)
            except OSError as error:
                if error.errno != errno.ENOSYS:
                    raise
            else:
                return
        for file in files:
            with self.borrow(file) as handle:
                sync(handle)

    # --- the tree as a whole ---

    def facts(self, file: int) -> FileFacts:
        """Return what stands under a file's name, without keeping it open.

        Raises:
            FileNotFoundError: nothing does.
            NotAFile: no regular file.
        """
        with self._lock:
            *folders, name = self._components(file)
            found = self.disk.facts_at(self._descend(tuple(folders)), name, self.follow)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, self.path_of(file))
        if found.kind is not Kind.FILE:
            raise NotAFile(found.kind)
        return found

    def stamps(self) -> bytes:
        """Return the stamps of all files one after the other.

        Raises:
            OSError: one of them is missing or no file.
        """
        return b"".join(self.facts(file).stamp for file in range(self.layout.count))

    def lengths_right(self) -> bool:
        """Tell whether all files are there with the length they should have."""
        try:
            return all(
                self.facts(file).size == self.layout.length_of(file)
                for file in range(self.layout.count)
            )
        except (FileNotFoundError, NotADirectoryError):
            return False

    def allocated(self) -> int:
        """Return how many bytes of space the files that exist take up."""
        return sum(self._allocated(file) for file in range(self.layout.count))

    def _allocated(self, file: int) -> int:
        try:
            return self.facts(file).allocated
        except FileNotFoundError:
            return 0

    def make(self, *, allocate: bool) -> None:
        """Create folders and files that are missing, each file at its length.

        Args:
            allocate: reserve the space too.

        Raises:
            OSError: the rest is not made then.
        """
        with self._lock:
            if self.is_folder:
                self._descend((self.top,), make=True)
            for file, entry in enumerate(self.files):
                handle = self._open(file, make=True)
                try:
                    self._size(handle, entry.length, allocate)
                finally:
                    self.disk.close(handle)
        self.sync_names()

    def _size(self, handle: int, length: int, allocate: bool) -> None:
        found = self.disk.facts(handle)
        if found.size != length:
            self.disk.truncate(handle, length)
        if allocate and found.allocated < length:
            self.disk.allocate(handle, length)

    def directories(self) -> list[tuple[str, ...]]:
        """Return the folders of a folder content, the top one first; none for a single file."""
        if not self.is_folder:
            return []
        found: dict[tuple[str, ...], None] = {(self.top,): None}
        for file in range(self.layout.count):
            components = self._components(file)
            # Files are sorted: a folder seen before has brought its own parents along.
            for depth in range(len(components) - 1, 0, -1):
                if components[:depth] in found:
                    break
                found[components[:depth]] = None
        return sorted(found)

    def _each_directory(self, call: Callable[[int], None]) -> None:
        with self._lock:
            for components in self.directories():
                call(self._descend(components))

    def sync_names(self) -> None:
        """Make the names and lengths of all files durable."""
        self._sync_many(list(range(self.layout.count)), self.disk.sync)
        self._each_directory(self.disk.sync)
        self.disk.sync(self.root)

    def chmod(self) -> None:
        """Give files 0644 or 0755 and folders 0755, less the umask, and make that durable."""
        for file, entry in enumerate(self.files):
            mode = 0o755 if entry.executable else 0o644
            with self.borrow(file) as handle:
                self.disk.chmod(handle, mode & ~self.disk.umask)
        folder_mode = 0o755 & ~self.disk.umask
        self._each_directory(lambda handle: self.disk.chmod(handle, folder_mode))
        self.sync_names()


def identity(stamps: bytes) -> bytes:
    """Return the SHA-256 over device, inode and size of all files of a tree's stamps."""
    digest = hashlib.sha256()
    for start in range(0, len(stamps), STAMP_BYTES):
        digest.update(stamps[start : start + IDENTITY_BYTES])
    return digest.digest()
