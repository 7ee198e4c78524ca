"""The seam to the file system: :class:`IDisk`, what it tells about files, and small compositions.

Job: name every operation storage needs, each blocking and to be called in a worker. Two sides:
:class:`~p2pdist.storage.realdisk.RealDisk` and the tests' ``SimDisk``. Does NOT know pieces.
Threat: local users who plant symbolic links, FIFOs or files where we are going to write; so every
name is ONE component relative to an open directory handle, links are never followed unless the
operator named the file himself, and nothing is opened that could block. Tests: ``test_disk``.

Handles are plain integers. Failing operations raise :class:`OSError`; :func:`storage_error` turns
that into the sentence people read.
"""
# ruff: noqa: N805 -- methods of a zope Interface have no self

from __future__ import annotations

import enum
import errno
import os
import struct
from contextlib import suppress

from attrs import frozen
from zope.interface import Attribute, Interface

from p2pdist.errors import DiskFull, DiskTrouble, StorageError

STAMP_BYTES = 40
IDENTITY_BYTES = 24
"""The part of a stamp that our own writing does not change."""
_STAMP = struct.Struct(">QQQqq")

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
TRANSIENT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR})
"""Errors that say nothing about the file: it may well be read a moment later."""


class Kind(enum.Enum):
    """What a name stands for; the value is the word people read."""

    FILE = "a file"
    DIRECTORY = "a folder"
    SYMLINK = "a symbolic link"
    OTHER = "neither a file nor a folder"


class Access(enum.Enum):
    """How a file is opened."""

    READ = "read"
    UPDATE = "read and write"
    CREATE = "make anew with mode 0600, then read and write; an existing name is an error"


@frozen
class FileFacts:
    """What fstat says.

    Attributes:
        device: st_dev.
        inode: st_ino.
        size: bytes.
        mtime_ns: last change of the bytes, nanoseconds.
        ctime_ns: last change of bytes or inode.
        kind: file, folder, link or something else.
        mode: permission bits.
        allocated: bytes that take up space; less than ``size`` where there are holes.
    """

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int
    kind: Kind
    mode: int
    allocated: int

    @property
    def stamp(self) -> bytes:
        """Return device, inode, size, mtime and ctime as :data:`STAMP_BYTES` big-endian bytes.

        The first :data:`IDENTITY_BYTES` are device, inode and size.
        """
        return _STAMP.pack(self.device, self.inode, self.size, self.mtime_ns, self.ctime_ns)


class NotAFile(OSError):
    """Something that is no regular file stands where a file is expected.

    Attributes:
        kind: what stands there.
        below: names that lead there from the path the caller knows.
    """

    def __init__(self, kind: Kind, below: tuple[str, ...] = ()) -> None:
        super().__init__(errno.EINVAL, f"is {kind.value}")
        self.kind = kind
        self.below = below


class IDisk(Interface):
    """Blocking file operations; thread-safe as far as handles are not closed under others."""

    umask: int = Attribute("Permission bits taken from what is published.")

    def open_root(path: str) -> int:
        """Open a folder by its whole path, links followed: the operator chose it."""

    def make_root(path: str, mode: int) -> None:
        """Make a folder by its whole path, with parents; an existing one is left as it is."""

    def open_directory(parent: int, name: str) -> int:
        """Open a folder inside ``parent``; a link is ELOOP or ENOTDIR."""

    def make_directory(parent: int, name: str) -> None:
        """Make a folder with mode 0700."""

    def open_file(parent: int, name: str, access: Access, follow: bool = False) -> int:
        """Open a regular file without ever blocking.

        Raises:
            NotAFile: FIFO, device, socket or folder.
            OSError: ELOOP for a link unless ``follow``; else as open(2).
        """

    def close(handle: int) -> None:
        """Give the handle back; never fails, for the handle is gone either way."""

    def facts(handle: int) -> FileFacts:
        """Return what the handle stands for."""

    def facts_at(parent: int, name: str, follow: bool = False) -> FileFacts | None:
        """Return what the name stands for, or ``None`` when there is nothing."""

    def names(handle: int) -> list[str]:
        """Return the names in a folder, sorted."""

    def read(handle: int, offset: int, size: int) -> bytes:
        """Return ``size`` bytes, fewer only at the end of the file."""

    def warm(handle: int, offset: int, size: int) -> int | None:
        """Bring bytes into memory, so that sendfile(2) from ``handle`` need not wait for the disk.

        Returns how many there are, or ``None`` where bytes cannot be sent from a handle.
        """

    def next_data(handle: int, offset: int) -> int:
        """Return where bytes that are no hole may come next; the file's size where none do.

        ``offset`` itself where the file system cannot tell holes from zeros.
        """

    def write(handle: int, offset: int, data: bytes | memoryview) -> None:
        """Write all of ``data``; after an error any part of it may stand there."""

    def truncate(handle: int, size: int) -> None:
        """Cut or extend the file to ``size`` bytes; what is added is a hole."""

    def allocate(handle: int, size: int) -> None:
        """Reserve space for ``size`` bytes, if the file system can; else do nothing."""

    def sync_data(handle: int) -> None:
        """Make the file's bytes and size durable (fdatasync)."""

    def sync(handle: int) -> None:
        """Make a file's bytes and inode, or a folder's names, durable (fsync)."""

    def sync_all(handle: int) -> None:
        """Make everything on the file system of ``handle`` durable (syncfs).

        Raises:
            OSError: ENOSYS where the system has no such call, or a write failed since the open.
        """

    def forget(handle: int) -> None:
        """Drop clean cached pages of the file, so that the next read asks the device."""

    def chmod(handle: int, mode: int) -> None:
        """Set the permission bits of a file or folder."""

    def link(parent: int, old: str, new: str) -> None:
        """Give the file ``old`` a second name."""

    def unlink(parent: int, name: str) -> None:
        """Remove a file's name."""

    def remove_directory(parent: int, name: str) -> None:
        """Remove an empty folder."""

    def rename(parent: int, old: str, new: str) -> None:
        """Rename at once; a file or an empty folder ``new`` is replaced."""

    def rename_exclusive(parent: int, old: str, new: str) -> None:
        """Rename, but never replace anything (EEXIST)."""

    def free_bytes(handle: int) -> int:
        """Return how many bytes an ordinary user may still write on this file system."""

    def lock(handle: int) -> bool:
        """Take an exclusive lock that ends with the handle; False when somebody has it."""


def storage_error(error: OSError, path: str) -> StorageError:
    """Return the error people see: the path, what is wrong and, for rights, who was refused."""
    if error.errno in NO_SPACE:
        return DiskFull(f"{path}: {os.strerror(error.errno or errno.ENOSPC)}")
    if isinstance(error, NotAFile):
        where = "/".join((path, *error.below))
        hint = ""
        if error.kind is Kind.SYMLINK:
            hint = " (p2pdist seed --path follows links to files)"
        return StorageError(
            f"{where} is {error.kind.value}; a regular file is expected there{hint}"
        )
    if error.errno == errno.ELOOP:
        return StorageError(f"{path} is a symbolic link, which is not followed for safety")
    if error.errno in {errno.EACCES, errno.EPERM}:
        return StorageError(f"{path}: permission denied for user {os.getuid()}")
    if error.errno == errno.ENOENT:
        return StorageError(f"{path} does not exist")
    passing = error.errno in TRANSIENT or error.errno == errno.EIO
    return (DiskTrouble if passing else StorageError)(f"{path}: {error.strerror or error}")


def read_file(disk: IDisk, parent: int, name: str, size_max: int) -> bytes | None:
    """Return a small file's bytes, or ``None`` when there is no such file.

    Raises:
        OSError: EFBIG for more than ``size_max`` bytes; else what opening or reading raised.
    """
    try:
        handle = disk.open_file(parent, name, Access.READ)
    except FileNotFoundError:
        return None
    try:
        data = disk.read(handle, 0, size_max + 1)
    finally:
        disk.close(handle)
    if len(data) > size_max:
        raise OSError(errno.EFBIG, f"more than {size_max} bytes")
    return data


def write_file(disk: IDisk, parent: int, name: str, data: bytes) -> None:
    """Replace a small file (mode 0600) so that a crash leaves the old or the new one, whole."""
    draft = name + ".new"
    with suppress(FileNotFoundError):
        disk.unlink(parent, draft)
    handle = disk.open_file(parent, draft, Access.CREATE)
    try:
        disk.write(handle, 0, data)
        disk.sync(handle)
    finally:
        disk.close(handle)
    disk.rename(parent, draft, name)
    disk.sync(parent)


def remove_tree(disk: IDisk, parent: int, name: str) -> None:
    """Remove a file, or a folder with all in it; what is not there is fine. Follows no link."""
    facts = disk.facts_at(parent, name)
    if facts is None:
        return
    if facts.kind is not Kind.DIRECTORY:
        disk.unlink(parent, name)
        return
    inner = disk.open_directory(parent, name)
    try:
        for child in disk.names(inner):
            remove_tree(disk, inner, child)
    finally:
        disk.close(inner)
    disk.remove_directory(parent, name)
