"""A file system in memory that can be full, fail, and lose what was not synced.

Job: stand in for :class:`~p2pdist.storage.realdisk.RealDisk` with the worst behaviour POSIX allows.
Every write, size and name is kept twice: as running programs see it, and as it would be found
after the power went off. :meth:`SimDisk.crash` keeps of each unsynced change what it is told to,
independently of the others: a later change may survive an earlier one. After a failed sync the
pages count as clean although they are not on the device, as on Linux. Tests: ``test_disk``.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable

from attrs import define, field, frozen
from zope.interface import implementer

from p2pdist.storage.disk import Access, FileFacts, IDisk, Kind, NotAFile

PAGE_BYTES = 4096


class PowerLost(BaseException):
    """The simulated machine is off: no code of ours may catch this."""


def any_share(rng: random.Random) -> Callable[[], float]:
    """Return a ``survive`` for :meth:`SimDisk.crash` that loses, keeps and tears at random."""
    return lambda: rng.choice((0.0, 1.0, rng.random()))


def _error(code: int) -> OSError:
    return OSError(code, os.strerror(code))


@frozen
class Change:
    """Something that no sync has made durable yet.

    Attributes:
        inode: of the file or folder.
        offset: in the file; ``None`` for a change of names or length.
        size: bytes written.
    """

    inode: int
    offset: int | None = None
    size: int = 0

    def follows(self, before: Change) -> bool:
        """Tell whether this is the next page of the same write."""
        if self.offset is None or before.offset is None or self.inode != before.inode:
            return False
        return self.offset == before.offset + before.size and self.offset % PAGE_BYTES == 0


@define(eq=False, repr=False)
class _Node:
    """A file, folder, link or other thing."""

    inode: int
    kind: Kind
    mode: int
    time: int
    links: int = 0
    locked_by: int | None = None

    # a file: bytes as seen, bytes on the device, changes in between
    data: bytearray = field(factory=bytearray)
    pages: set[int] = field(factory=set)
    reserved: set[int] = field(factory=set)
    """Pages that take up space and hold nothing yet."""
    durable: bytearray = field(factory=bytearray)
    unsynced: list[tuple[int, bytes | None]] = field(factory=list)
    """(offset, bytes written), or (size, None) for a truncation."""

    # a folder: likewise for names; each change is atomic and may hold two names (rename)
    names: dict[str, _Node] = field(factory=dict)
    durable_names: dict[str, _Node] = field(factory=dict)
    unsynced_names: list[dict[str, _Node | None]] = field(factory=list)

    # a link
    target: str = ""


def _apply(data: bytearray, offset: int, written: bytes | None) -> None:
    if written is None:
        del data[offset:]
        data.extend(bytes(offset - len(data)))
    else:
        data.extend(bytes(max(0, offset + len(written) - len(data))))
        data[offset : offset + len(written)] = written


def _apply_names(names: dict[str, _Node], change: dict[str, _Node | None]) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


@implementer(IDisk)
@define(eq=False, repr=False)
class SimDisk:
    """One simulated file system; ``/`` exists.

    Attributes:
        capacity: bytes there is room for.
        calls: name and subject of every operation that may fail, in order.
        failures: number of an operation in ``calls`` -> errno it fails with, without effect.
        failing: name of an operation -> errnos its next calls fail with, likewise; 0 lets one by.
        crash_before: number of the operation at which the power goes off.
        unsupported: names of operations that fail with EOPNOTSUPP (``link``) or do nothing.
    """

    capacity: int = 1 << 40
    umask: int = 0o022
    calls: list[str] = field(init=False, factory=list)
    failures: dict[int, int] = field(init=False, factory=dict)
    failing: dict[str, list[int]] = field(init=False, factory=dict)
    crash_before: int | None = field(init=False, default=None)
    unsupported: set[str] = field(init=False, factory=set)
    _nodes: int = field(init=False, default=0)
    _free_inodes: list[int] = field(init=False, factory=list)
    """Numbers of removed files: the next new one gets the last of them, as on ext4."""
    _clock: int = field(init=False, default=0)
    _handles: dict[int, _Node] = field(init=False, factory=dict)
    _next_handle: int = field(init=False, default=3)
    _root: _Node = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._root = self._new(Kind.DIRECTORY, 0o755)
        self._root.links = 1

    # --- what tests do to the disk ---

    @property
    def open_handles(self) -> int:
        """How many handles are open."""
        return len(self._handles)

    def crash(self, survive: Callable[[], float]) -> None:
        """Switch off and on again: handles and locks are gone, and so may be unsynced changes.

        Args:
            survive: asked once per unsynced change, for the share of it that reached the device:
                0.0 nothing, 1.0 all; in between, a write is torn and a name's change is kept
                from 0.5 on.
        """
        self.kill()
        self._free_inodes.clear()  # which ones are free again is for the journal to say
        self._crash_folder(self._root, survive, set())
        self._release_locks()  # of files whose names came back

    def unsynced_changes(self) -> list[Change]:
        """Return the changes :meth:`crash` asks about, in its order, if all names survive."""
        return self._unsynced_in(self._root, set())

    def _unsynced_in(self, folder: _Node, seen: set[int]) -> list[Change]:
        found = [Change(folder.inode) for _ in folder.unsynced_names]
        for node in folder.names.values():
            if node.kind is Kind.DIRECTORY:
                found += self._unsynced_in(node, seen)
            elif node.inode not in seen:
                seen.add(node.inode)
                for offset, written in node.unsynced:
                    whole = written is None
                    found.append(Change(node.inode, None if whole else offset, len(written or b"")))
        return found

    def kill(self) -> None:
        """End the process: handles and locks are gone; what was not synced still is not."""
        self._handles.clear()
        self.crash_before = None
        self.failures.clear()
        self.failing.clear()
        self.calls.clear()
        self._release_locks()

    def _release_locks(self) -> None:
        for node in self._all_nodes(self._root):
            node.locked_by = None

    def _crash_folder(self, folder: _Node, survive: Callable[[], float], seen: set[int]) -> None:
        for change in folder.unsynced_names:
            if survive() >= 0.5:
                _apply_names(folder.durable_names, change)
        folder.unsynced_names.clear()
        folder.names = dict(folder.durable_names)
        for node in folder.names.values():
            if node.kind is Kind.DIRECTORY:
                self._crash_folder(node, survive, seen)
            elif node.inode not in seen:
                seen.add(node.inode)
                self._crash_file(node, survive)

    def _crash_file(self, node: _Node, survive: Callable[[], float]) -> None:
        for offset, written in node.unsynced:
            share = survive()
            if written is not None:
                kept = written[: int(len(written) * share)]
                if kept:
                    _apply(node.durable, offset, kept)
            elif share >= 0.5:
                _apply(node.durable, offset, None)
        node.unsynced.clear()
        node.data = bytearray(node.durable)
        pages = range(-(-len(node.data) // PAGE_BYTES))
        held = {p for p in pages if any(node.data[p * PAGE_BYTES : (p + 1) * PAGE_BYTES])}
        node.pages |= held
        node.reserved -= held

    def put(self, path: str, data: bytes = b"", *, mode: int = 0o644) -> None:
        """Make a durable file with its folders, as if it had always been there."""
        folder, name = self._parent(path)
        node = folder.names.get(name) or self._new(Kind.FILE, mode)
        node.data, node.durable = bytearray(data), bytearray(data)
        node.pages = set(range(-(-len(data) // PAGE_BYTES)))
        node.reserved.clear()
        node.unsynced.clear()
        node.time = self._tick()
        self._place(folder, name, node)

    def put_folder(self, path: str) -> None:
        """Make a durable folder, with those above."""
        folder, name = self._parent(path)
        if name not in folder.names:
            self._place(folder, name, self._new(Kind.DIRECTORY, 0o755))

    def put_link(self, path: str, target: str) -> None:
        """Make a symbolic link to a whole path."""
        folder, name = self._parent(path)
        node = self._new(Kind.SYMLINK, 0o777)
        node.target = target
        self._place(folder, name, node)

    def put_other(self, path: str) -> None:
        """Make a FIFO."""
        folder, name = self._parent(path)
        self._place(folder, name, self._new(Kind.OTHER, 0o600))

    def flip(self, path: str, offset: int) -> None:
        """Invert a byte on the device without anybody noticing by the stamp."""
        node = self._find(path)
        node.pages.add(offset // PAGE_BYTES)  # no hole, whatever it was
        node.reserved.discard(offset // PAGE_BYTES)
        for data in (node.data, node.durable):
            if offset < len(data):
                data[offset] ^= 0xFF
        if any(w and at <= offset < at + len(w) for at, w in node.unsynced):
            node.unsynced.append((offset, bytes([node.data[offset]])))  # so a sync writes it

    def touch(self, path: str) -> None:
        """Give a file another time, as a change of its bytes would."""
        self._find(path).time = self._tick()

    def get(self, path: str) -> bytes:
        """Return a file's bytes as programs see them."""
        return bytes(self._find(path).data)

    def mode(self, path: str) -> int:
        """Return the permission bits."""
        return self._find(path).mode

    def paths(self, path: str = "/") -> list[str]:
        """Return the paths of all files below a folder, sorted."""
        found = []
        for name, node in sorted(self._find(path).names.items()):
            inner = os.path.join(path, name)  # noqa: PTH118
            found += self.paths(inner) if node.kind is Kind.DIRECTORY else [inner]
        return found

    def remove(self, path: str) -> None:
        """Remove a name durably."""
        folder, name = self._parent(path)
        self._free_inodes.append(folder.names[name].inode)
        del folder.names[name], folder.durable_names[name]

    def _parent(self, path: str) -> tuple[_Node, str]:
        *folders, name = path.strip("/").split("/")
        node = self._root
        for folder in folders:
            if folder not in node.names:
                self._place(node, folder, self._new(Kind.DIRECTORY, 0o755))
            node = node.names[folder]
        return node, name

    def _place(self, folder: _Node, name: str, node: _Node) -> None:
        if folder.names.get(name) is not node:
            node.links += 1
        folder.names[name] = folder.durable_names[name] = node

    def _find(self, path: str) -> _Node:
        node = self._root
        for name in path.strip("/").split("/"):
            node = self._follow(node.names[name]) if name else node
        return node

    def _follow(self, node: _Node) -> _Node:
        return self._find(node.target) if node.kind is Kind.SYMLINK else node

    # --- inside ---

    def _tick(self) -> int:
        self._clock += 1
        return self._clock

    def _new(self, kind: Kind, mode: int) -> _Node:
        if self._free_inodes:
            return _Node(self._free_inodes.pop(), kind, mode, self._tick())
        self._nodes += 1
        return _Node(self._nodes, kind, mode, self._tick())

    def _call(self, name: str, subject: object) -> None:
        number = len(self.calls)
        if self.crash_before is not None and number >= self.crash_before:
            raise PowerLost
        self.calls.append(f"{name} {subject}")
        code = self.failures.pop(number, None)
        codes = self.failing.get(name)
        if code is None and codes:
            code = codes.pop(0)
        if code:
            raise _error(code)

    def count(self, name: str) -> int:
        """Return how often an operation was called since the last crash."""
        return sum(call.split()[0] == name for call in self.calls)

    def _lookup(self, parent: int, name: str) -> _Node:
        assert "/" not in name and name not in {"", ".", ".."}, name
        folder = self._handles[parent]
        if folder.kind is not Kind.DIRECTORY:
            raise _error(errno.ENOTDIR)
        if name not in folder.names:
            raise _error(errno.ENOENT)
        return folder.names[name]

    def _open_node(self, node: _Node) -> int:
        handle, self._next_handle = self._next_handle, self._next_handle + 1
        self._handles[handle] = node
        return handle

    def _change_names(self, folder: _Node, change: dict[str, _Node | None]) -> None:
        for name, node in change.items():
            gone = folder.names.get(name)
            if gone is not None:
                gone.links -= 1
                gone.time = self._tick()
            if node is not None:
                node.links += 1
                node.time = self._tick()
        _apply_names(folder.names, change)
        folder.unsynced_names.append(change)
        folder.time = self._tick()

    # --- IDisk ---

    def open_root(self, path: str) -> int:
        """See :class:`IDisk`, here and below."""
        self._call("open_root", path)
        try:
            node = self._find(path)
        except KeyError:
            raise _error(errno.ENOENT) from None
        if node.kind is not Kind.DIRECTORY:
            raise _error(errno.ENOTDIR)
        return self._open_node(node)

    def make_root(self, path: str, mode: int) -> None:
        """Make a folder with its parents."""
        self._call("make_root", path)
        try:
            self._find(path)
        except KeyError:
            self.put_folder(path)
            self._find(path).mode = mode

    def open_directory(self, parent: int, name: str) -> int:
        """Open a folder."""
        self._call("open_directory", name)
        node = self._lookup(parent, name)
        if node.kind is Kind.SYMLINK:
            raise _error(errno.ELOOP)
        if node.kind is not Kind.DIRECTORY:
            raise _error(errno.ENOTDIR)
        return self._open_node(node)

    def make_directory(self, parent: int, name: str) -> None:
        """Make a folder."""
        self._call("make_directory", name)
        folder = self._handles[parent]
        if name in folder.names:
            raise _error(errno.EEXIST)
        self._change_names(folder, {name: self._new(Kind.DIRECTORY, 0o700)})

    def open_file(self, parent: int, name: str, access: Access, follow: bool = False) -> int:
        """Open a file."""
        self._call(f"open_file {access.name}", name)
        folder = self._handles[parent]
        if access is Access.CREATE:
            if name in folder.names:
                raise _error(errno.EEXIST)
            self._change_names(folder, {name: self._new(Kind.FILE, 0o600)})
        node = self._lookup(parent, name)
        if follow:
            node = self._follow(node)
        if node.kind is Kind.SYMLINK:
            raise _error(errno.ELOOP)
        if node.kind is not Kind.FILE:
            raise NotAFile(node.kind)
        return self._open_node(node)

    def close(self, handle: int) -> None:
        """Close; like all that cannot fail, this is no call that could be the k-th."""
        node = self._handles.pop(handle, None)
        if node is not None and node.locked_by == handle:
            node.locked_by = None

    def facts(self, handle: int) -> FileFacts:
        """Return the facts of an open file."""
        self._call("facts", handle)
        return self._facts(self._handles[handle])

    def _facts(self, node: _Node) -> FileFacts:
        return FileFacts(
            device=1,
            inode=node.inode,
            size=len(node.data),
            mtime_ns=node.time,
            ctime_ns=node.time,
            kind=node.kind,
            mode=node.mode,
            allocated=len(node.pages) * PAGE_BYTES,
        )

    def facts_at(self, parent: int, name: str, follow: bool = False) -> FileFacts | None:
        """Return the facts of a name."""
        self._call("facts_at", name)
        try:
            node = self._lookup(parent, name)
            return self._facts(self._follow(node) if follow else node)
        except (FileNotFoundError, KeyError):
            return None

    def names(self, handle: int) -> list[str]:
        """Return a folder's names."""
        self._call("names", handle)
        return sorted(self._handles[handle].names)

    def read(self, handle: int, offset: int, size: int) -> bytes:
        """Read."""
        self._call("read", f"{handle} {offset}+{size}")
        return bytes(self._handles[handle].data[offset : offset + size])

    def warm(self, handle: int, offset: int, size: int) -> int | None:
        """Nothing can be sent from a simulated file."""
        del handle, offset, size
        return None

    def next_data(self, handle: int, offset: int) -> int:
        """Look for the next page that takes space."""
        self._call("next_data", f"{handle} {offset}")
        node = self._handles[handle]
        if "next_data" in self.unsupported:
            return offset
        held = node.pages - node.reserved
        if offset // PAGE_BYTES in held:
            return offset
        later = [page * PAGE_BYTES for page in held if page * PAGE_BYTES > offset]
        return min(later, default=len(node.data))

    def write(self, handle: int, offset: int, data: bytes | memoryview) -> None:
        """Write page by page; when there is no room left, what fits stays written."""
        self._call("write", f"{handle} {offset}+{len(data)}")
        node, view = self._handles[handle], memoryview(data)
        while view:
            size = min(len(view), PAGE_BYTES - offset % PAGE_BYTES)
            self._take_page(node, offset // PAGE_BYTES)
            piece = bytes(view[:size])
            _apply(node.data, offset, piece)
            node.unsynced.append((offset, piece))
            node.time = self._tick()
            view, offset = view[size:], offset + size

    def _take_page(self, node: _Node, page: int) -> None:
        node.reserved.discard(page)
        if page not in node.pages:
            if self._free() < PAGE_BYTES:
                raise _error(errno.ENOSPC)
            node.pages.add(page)

    def truncate(self, handle: int, size: int) -> None:
        """Set the size."""
        self._call("truncate", f"{handle} {size}")
        node = self._handles[handle]
        _apply(node.data, size, None)
        node.pages = {page for page in node.pages if page * PAGE_BYTES < size}
        node.reserved &= node.pages
        node.unsynced.append((size, None))
        node.time = self._tick()

    def allocate(self, handle: int, size: int) -> None:
        """Reserve."""
        self._call("allocate", f"{handle} {size}")
        if "allocate" in self.unsupported:
            return
        node = self._handles[handle]
        wanted = set(range(-(-size // PAGE_BYTES))) - node.pages
        if len(wanted) * PAGE_BYTES > self._free():
            raise _error(errno.ENOSPC)
        node.pages |= wanted
        node.reserved |= wanted
        if size > len(node.data):
            _apply(node.data, size, None)
            node.unsynced.append((size, None))

    def sync_data(self, handle: int) -> None:
        """Make bytes durable."""
        self._sync("sync_data", handle)

    def sync(self, handle: int) -> None:
        """Make bytes or names durable."""
        self._sync("sync", handle)

    def _sync(self, name: str, handle: int) -> None:
        node = self._handles[handle]
        try:
            self._call(name, handle)
        except OSError:
            node.unsynced.clear()  # marked clean, and never written
            raise
        self._make_durable(node)

    def _make_durable(self, node: _Node) -> None:
        for offset, written in node.unsynced:
            _apply(node.durable, offset, written)
        node.unsynced.clear()
        before = set(node.durable_names.values())
        for change in node.unsynced_names:
            _apply_names(node.durable_names, change)
        node.unsynced_names.clear()
        for gone in before - set(node.durable_names.values()):
            if not gone.links and gone not in self._handles.values():
                self._free_inodes.append(gone.inode)

    def sync_all(self, handle: int) -> None:
        """Make everything durable."""
        self._call("sync_all", handle)
        if "sync_all" in self.unsupported:
            raise _error(errno.ENOSYS)
        for node in self._all_nodes(self._root):
            self._make_durable(node)

    def _all_nodes(self, folder: _Node) -> list[_Node]:
        found = [folder]
        for node in folder.names.values():
            found += self._all_nodes(node)
        return found

    def forget(self, handle: int) -> None:
        """Drop clean pages: what a failed sync did not write is gone now."""
        self._call("forget", handle)
        node = self._handles[handle]
        data = bytearray(node.durable)
        for offset, written in node.unsynced:
            _apply(data, offset, written)
        node.data = data

    def chmod(self, handle: int, mode: int) -> None:
        """Set permission bits."""
        self._call("chmod", f"{handle} {mode:o}")
        node = self._handles[handle]
        node.mode = mode
        node.time = self._tick()

    def link(self, parent: int, old: str, new: str) -> None:
        """Add a name."""
        self._call("link", f"{old} {new}")
        if "link" in self.unsupported:
            raise _error(errno.EOPNOTSUPP)
        node, folder = self._lookup(parent, old), self._handles[parent]
        if new in folder.names:
            raise _error(errno.EEXIST)
        self._change_names(folder, {new: node})

    def unlink(self, parent: int, name: str) -> None:
        """Remove a name."""
        self._call("unlink", name)
        if self._lookup(parent, name).kind is Kind.DIRECTORY:
            raise _error(errno.EISDIR)
        self._change_names(self._handles[parent], {name: None})

    def remove_directory(self, parent: int, name: str) -> None:
        """Remove an empty folder."""
        self._call("remove_directory", name)
        node = self._lookup(parent, name)
        if node.kind is not Kind.DIRECTORY:
            raise _error(errno.ENOTDIR)
        if node.names:
            raise _error(errno.ENOTEMPTY)
        self._change_names(self._handles[parent], {name: None})

    def rename(self, parent: int, old: str, new: str) -> None:
        """Rename, replacing a file or an empty folder."""
        self._call("rename", f"{old} {new}")
        folder, node = self._handles[parent], self._lookup(parent, old)
        there = folder.names.get(new)
        if there is not None and there.kind is Kind.DIRECTORY and there.names:
            raise _error(errno.ENOTEMPTY)
        self._change_names(folder, {old: None, new: node})

    def rename_exclusive(self, parent: int, old: str, new: str) -> None:
        """Rename, replacing nothing."""
        self._call("rename_exclusive", f"{old} {new}")
        folder, node = self._handles[parent], self._lookup(parent, old)
        if new in folder.names:
            raise _error(errno.EEXIST)
        self._change_names(folder, {old: None, new: node})

    def free_bytes(self, handle: int) -> int:
        """Return the room left."""
        self._call("free_bytes", handle)
        return self._free()

    def _free(self) -> int:
        nodes = {id(node): node for node in self._all_nodes(self._root)}
        return self.capacity - PAGE_BYTES * sum(len(node.pages) for node in nodes.values())

    def lock(self, handle: int) -> bool:
        """Lock."""
        self._call("lock", handle)
        node = self._handles[handle]
        if node.locked_by is not None:
            return False
        node.locked_by = handle
        return True
