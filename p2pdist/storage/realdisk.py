"""The real file system behind :class:`~p2pdist.storage.disk.IDisk`.

Job: one system call, or a few, per operation. Does NOT decide anything. Threat: see ``disk``.
renameat2, fallocate and syncfs come from libc by ctypes, for Python offers none of them; where
libc or the kernel has them not, the operation falls back or says so. Tests: ``test_disk``.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from attrs import define, field
from zope.interface import implementer

from p2pdist.source import next_data
from p2pdist.storage.disk import Access, FileFacts, IDisk, Kind, NotAFile

_BASE = os.O_CLOEXEC | os.O_NOCTTY | os.O_NONBLOCK
_FLAGS = {
    Access.READ: _BASE | os.O_RDONLY,
    Access.UPDATE: _BASE | os.O_RDWR,
    Access.CREATE: _BASE | os.O_RDWR | os.O_CREAT | os.O_EXCL,
}
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_RENAME_NOREPLACE = 1
_UNSUPPORTED = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL})


def _current_umask() -> int:
    # The only portable way to read it is to set it; callers make their disk before any thread.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _kind(mode: int) -> Kind:
    if stat.S_ISREG(mode):
        return Kind.FILE
    if stat.S_ISDIR(mode):
        return Kind.DIRECTORY
    return Kind.SYMLINK if stat.S_ISLNK(mode) else Kind.OTHER


def _facts(result: os.stat_result) -> FileFacts:
    return FileFacts(
        device=result.st_dev,
        inode=result.st_ino,
        size=result.st_size,
        mtime_ns=result.st_mtime_ns,
        ctime_ns=result.st_ctime_ns,
        kind=_kind(result.st_mode),
        mode=stat.S_IMODE(result.st_mode),
        allocated=result.st_blocks * 512,
    )


@contextmanager
def _nowhere() -> Iterator[int]:
    handle = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        yield handle
    finally:
        os.close(handle)


_libc: Any = ctypes.CDLL(None, use_errno=True)


def _system_call(names: tuple[str, ...], *arguments: Any) -> None:
    """Call the first function of libc that exists; ENOSYS when none does."""
    for name in names:
        function = getattr(_libc, name, None)
        if function is not None:
            if function(*arguments) != 0:
                code = ctypes.get_errno()
                raise OSError(code, os.strerror(code))
            return
    raise OSError(errno.ENOSYS, f"no {names[0]} here")


@implementer(IDisk)
@define
class RealDisk:
    """Files of the operating system. Make it at start, before threads: it reads the umask."""

    umask: int = field(factory=_current_umask)

    def open_root(self, path: str) -> int:
        """See :class:`IDisk`, here and below."""
        return os.open(path, _DIRECTORY)

    def make_root(self, path: str, mode: int) -> None:
        """Make a folder by its whole path."""
        folder = Path(path)
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode, exist_ok=True)

    def open_directory(self, parent: int, name: str) -> int:
        """Open a folder inside another."""
        return os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)

    def make_directory(self, parent: int, name: str) -> None:
        """Make a private folder."""
        os.mkdir(name, 0o700, dir_fd=parent)

    def open_file(self, parent: int, name: str, access: Access, follow: bool = False) -> int:
        """Open a regular file; O_NONBLOCK, so that a FIFO cannot make us wait."""
        flags = _FLAGS[access] if follow else _FLAGS[access] | os.O_NOFOLLOW
        try:
            handle = os.open(name, flags, 0o600, dir_fd=parent)
        except OSError as error:
            if error.errno in {errno.ENXIO, errno.EISDIR, errno.ENODEV}:
                kind = Kind.DIRECTORY if error.errno == errno.EISDIR else Kind.OTHER
                raise NotAFile(kind) from error
            raise
        kind = _kind(os.fstat(handle).st_mode)
        if kind is not Kind.FILE:
            os.close(handle)
            raise NotAFile(kind)
        return handle

    def close(self, handle: int) -> None:
        """Close; what the data had to say, syncing has said before."""
        with suppress(OSError):
            os.close(handle)

    def facts(self, handle: int) -> FileFacts:
        """Return fstat(2)."""
        return _facts(os.fstat(handle))

    def facts_at(self, parent: int, name: str, follow: bool = False) -> FileFacts | None:
        """Return fstatat(2)."""
        try:
            return _facts(os.stat(name, dir_fd=parent, follow_symlinks=follow))
        except FileNotFoundError:
            return None

    def names(self, handle: int) -> list[str]:
        """Return the folder's names."""
        return sorted(os.listdir(handle))

    def read(self, handle: int, offset: int, size: int) -> bytes:
        """Read until ``size`` bytes or the end; one call unless the system cuts it short."""
        data = os.pread(handle, size, offset)
        if len(data) == size or not data:
            return data
        chunks = [data]
        got = len(data)
        while got < size:
            chunk = os.pread(handle, size - got, offset + got)
            if not chunk:
                break
            chunks.append(chunk)
            got += len(chunk)
        return b"".join(chunks)

    def warm(self, handle: int, offset: int, size: int) -> int | None:
        """Send them nowhere: /dev/null takes references to pages and copies nothing."""
        there = 0
        try:
            with _nowhere() as nowhere:
                while there < size:
                    count = os.sendfile(nowhere, handle, offset + there, size - there)
                    if not count:
                        break
                    there += count
        except OSError as error:
            if error.errno in _UNSUPPORTED:
                return None
            raise
        return there

    def next_data(self, handle: int, offset: int) -> int:
        """Call lseek(2) with SEEK_DATA; nobody else uses the file's own offset."""
        return next_data(handle, offset)

    def write(self, handle: int, offset: int, data: bytes | memoryview) -> None:
        """Write until all is written."""
        view = memoryview(data)
        while view:
            written = os.pwrite(handle, view, offset)
            if not written:
                raise OSError(errno.EIO, "wrote nothing")
            view = view[written:]
            offset += written

    def truncate(self, handle: int, size: int) -> None:
        """Set the size."""
        os.ftruncate(handle, size)

    def allocate(self, handle: int, size: int) -> None:
        """Reserve with fallocate(2), not posix_fallocate(3).

        The latter writes a byte into every block where the file system cannot reserve.
        """
        try:
            _system_call(
                ("fallocate64", "fallocate"), handle, 0, ctypes.c_int64(0), ctypes.c_int64(size)
            )
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise

    def sync_data(self, handle: int) -> None:
        """Call fdatasync(2)."""
        os.fdatasync(handle)

    def sync(self, handle: int) -> None:
        """Call fsync(2)."""
        os.fsync(handle)

    def sync_all(self, handle: int) -> None:
        """Call syncfs(2)."""
        _system_call(("syncfs",), handle)

    def forget(self, handle: int) -> None:
        """Call posix_fadvise(2), whose advice is only that."""
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)

    def chmod(self, handle: int, mode: int) -> None:
        """Call fchmod(2)."""
        os.fchmod(handle, mode)

    def link(self, parent: int, old: str, new: str) -> None:
        """Call linkat(2)."""
        os.link(old, new, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)

    def unlink(self, parent: int, name: str) -> None:
        """Call unlinkat(2)."""
        os.unlink(name, dir_fd=parent)

    def remove_directory(self, parent: int, name: str) -> None:
        """Call rmdir(2)."""
        os.rmdir(name, dir_fd=parent)

    def rename(self, parent: int, old: str, new: str) -> None:
        """Call renameat(2)."""
        os.rename(old, new, src_dir_fd=parent, dst_dir_fd=parent)

    def rename_exclusive(self, parent: int, old: str, new: str) -> None:
        """Call renameat2(2); where that cannot be, look first and hope for the moment between."""
        try:
            _system_call(
                ("renameat2",),
                parent,
                os.fsencode(old),
                parent,
                os.fsencode(new),
                ctypes.c_uint(_RENAME_NOREPLACE),
            )
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            if self.facts_at(parent, new) is not None:
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
            self.rename(parent, old, new)

    def free_bytes(self, handle: int) -> int:
        """Return statvfs(3)'s figure; a file system that tells nothing counts as boundless."""
        figures = os.fstatvfs(handle)
        return figures.f_bavail * figures.f_frsize if figures.f_blocks else 1 << 62

    def lock(self, handle: int) -> bool:
        """Call flock(2), which also stands between two stores of one process."""
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
