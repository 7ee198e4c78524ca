"""The state directory: what a node keeps between runs, and the lock that makes it one node.

::

    lock                held while the node runs
    node.key            the node's Ed25519 seed and a hash of the machine it was made on
    neighbours          nodes and peers to ask first next time
    hooked              contents for which --on-complete was run
    limits              rate limits that were set while the node ran
    web-token           the key of the page, if one was asked for
    complete/HASH_KEY   records of complete contents (``records``)
    added/HASH_KEY      contents that were added while the node ran (``keptcontents``)

Job: those files, whole and private. Does NOT know what is in ``neighbours`` or ``added``. Blocks;
all of it is small. Threat: other local users (folder 0700, files 0600, a readable key is refused,
as ssh does), crashes (files are replaced whole), golden images: a copied key would make two
machines one node, so the key carries a hash of the machine-id and is renewed when that differs
(decision 6). Tests: ``test_statedir``.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from attrs import define, field

from p2pdist import limits
from p2pdist.errors import (
    AlreadyRunning,
    ConfigurationError,
    LocalProtocolError,
    StorageError,
)
from p2pdist.ids import HashKey
from p2pdist.keys import NodeKey
from p2pdist.logs import new_logger
from p2pdist.storage.disk import Access, IDisk, read_file, storage_error, write_file

KEY_MAGIC = b"p2pdist node key 1\n"
_SEED_BYTES = 32
_TOKEN_BYTES = 32
_HOOKED_LINE = 68
"""Bytes of a hash key as text, with its end of line."""
_TOKEN = re.compile(rb"[0-9a-f]{64}")
_HASH_KEY_NAME = re.compile(r"[0-9a-f]{64}\Z")
_ADDED = "added"
_MACHINE_ID_PATHS = ("/etc/machine-id", "/var/lib/dbus/machine-id")


def read_machine_id() -> bytes:
    """Return what tells this machine from its clones; empty where the system has no such file."""
    for path in _MACHINE_ID_PATHS:
        with suppress(OSError):
            return Path(path).read_bytes()[:64].strip()
    return b""


def _machine(machine_id: bytes) -> bytes:
    return hashlib.sha256(b"p2pdist/1 machine" + machine_id).digest()


def _parse_key(data: bytes, machine: bytes) -> NodeKey | None:
    """Return the key in a ``node.key``; ``None`` if it is damaged or another machine's."""
    whole = len(data) == len(KEY_MAGIC) + _SEED_BYTES + len(machine)
    if not (whole and data.startswith(KEY_MAGIC) and data.endswith(machine)):
        return None
    return NodeKey.from_seed(data[len(KEY_MAGIC) :][:_SEED_BYTES])


def _check_key_mode(disk: IDisk, root: int, path: str) -> None:
    facts = disk.facts_at(root, "node.key")
    if facts is not None and facts.mode & 0o077:
        raise ConfigurationError(
            f"{path} may be read by others; chmod 600 it, or remove it to have a new one"
        )


def saved_node_key(disk: IDisk, path: str, machine_id: bytes) -> NodeKey:
    """Return the key of a state directory, whether its node runs or not; changes nothing.

    Raises:
        StorageError: there is none, or none that the node would use.
        ConfigurationError: others may read it.
    """
    name = os.path.join(path, "node.key")  # noqa: PTH118 -- text
    with ExitStack() as undo:
        try:
            root = disk.open_root(os.path.abspath(path))  # noqa: PTH100 -- keeps links
            undo.callback(disk.close, root)
            _check_key_mode(disk, root, name)
            data = read_file(disk, root, "node.key", len(KEY_MAGIC) + _SEED_BYTES + 32)
        except FileNotFoundError:
            data = None
        except OSError as error:
            raise storage_error(error, name) from error
    if data is None:
        raise StorageError(f"{name} is not there; the node makes it when it first starts")
    key = _parse_key(data, _machine(machine_id))
    if key is None:
        raise StorageError(
            f"{name} is damaged or was made on another machine; the node makes a new one at its "
            "next start"
        )
    return key


@define(eq=False)
class StateDirectory:
    """An open and locked state directory; :meth:`close` it at the end.

    Attributes:
        path: its path.
    """

    log = new_logger()

    path: str
    _disk: IDisk = field(repr=False)
    _root: int
    _lock: int

    @classmethod
    def open(cls, disk: IDisk, path: str) -> StateDirectory:
        """Make the directory (0700) if need be, and lock it.

        Raises:
            AlreadyRunning: another node uses it.
            StorageError: it cannot be made or used.
            ConfigurationError: others may write to it.
        """
        path = os.path.abspath(path)  # noqa: PTH100 -- keeps links
        with ExitStack() as undo:
            try:
                disk.make_root(path, limits.STATE_DIR_MODE)
                root = disk.open_root(path)
                undo.callback(disk.close, root)
                mode = disk.facts(root).mode
                lock = cls._open_lock(disk, root)
                undo.callback(disk.close, lock)
                locked = disk.lock(lock)
            except OSError as error:
                raise storage_error(error, path) from error
            if mode & 0o022:
                raise ConfigurationError(f"{path} may be written to by others; chmod 700 it")
            if not locked:
                raise AlreadyRunning(f"{path} is in use by another p2pdist")
            undo.pop_all()
        return cls(path=path, disk=disk, root=root, lock=lock)

    @staticmethod
    def _open_lock(disk: IDisk, root: int) -> int:
        try:
            return disk.open_file(root, "lock", Access.CREATE)
        except FileExistsError:
            return disk.open_file(root, "lock", Access.UPDATE)

    def _path_of(self, name: str) -> str:
        return os.path.join(self.path, name)  # noqa: PTH118 -- text

    def close(self) -> None:
        """Release the lock."""
        self._disk.close(self._lock)
        self._disk.close(self._root)

    # --- the key ---

    def node_key(self, entropy: Callable[[int], bytes], machine_id: bytes) -> NodeKey:
        """Load the node's key; make it when there is none, or it is damaged or another machine's.

        Args:
            entropy: gives that many random bytes.
            machine_id: as :func:`read_machine_id` returns; only a hash of it is stored.

        Raises:
            ConfigurationError: others may read the key.
            StorageError: it cannot be read or written.
        """
        machine = _machine(machine_id)
        try:
            _check_key_mode(self._disk, self._root, self._path_of("node.key"))
            size = len(KEY_MAGIC) + _SEED_BYTES + len(machine)
            data = self._read("node.key", size)
            if data is not None:
                key = _parse_key(data, machine)
                if key is not None:
                    return key
                self.log.info("node.key is damaged or was made on another machine; renewing it")
            seed = entropy(_SEED_BYTES)
            write_file(self._disk, self._root, "node.key", KEY_MAGIC + seed + machine)
        except OSError as error:
            raise storage_error(error, self._path_of("node.key")) from error
        return NodeKey.from_seed(seed)

    def web_token(self, entropy: Callable[[int], bytes]) -> str:
        """Return the key of the page, 64 hexadecimal digits; make it when there is none.

        Raises:
            ConfigurationError: others may read it.
            StorageError: it cannot be read or written.
        """
        path = self._path_of("web-token")
        try:
            facts = self._disk.facts_at(self._root, "web-token")
            if facts is not None and facts.mode & 0o077:
                raise ConfigurationError(
                    f"{path} may be read by others; remove it to have a new one"
                )
            data = (self._read("web-token", 2 * _TOKEN_BYTES + 1) or b"").strip()
            if _TOKEN.fullmatch(data):
                return data.decode()
            token = entropy(_TOKEN_BYTES).hex()
            write_file(self._disk, self._root, "web-token", token.encode() + b"\n")
        except OSError as error:
            raise storage_error(error, path) from error
        return token

    def _read(self, name: str, size_max: int) -> bytes | None:
        """Return a file's bytes; too many of them are as good as damaged ones."""
        try:
            return read_file(self._disk, self._root, name, size_max)
        except OSError as error:
            if error.errno == errno.EFBIG:
                return b""
            raise

    # --- small files ---

    def load_hooked(self) -> bytes:
        """Return for which contents the command was run; empty when nothing is usable."""
        try:
            return self._read("hooked", limits.HOOKED * _HOOKED_LINE) or b""
        except OSError:
            return b""

    def save_hooked(self, data: bytes) -> None:
        """Replace it, whole or not at all.

        Raises:
            StorageError: not saved.
        """
        try:
            write_file(self._disk, self._root, "hooked", data)
        except OSError as error:
            raise storage_error(error, self._path_of("hooked")) from error

    def load_limits(self) -> bytes:
        """Return the rate limits that were saved; empty when there are none. Check them."""
        try:
            return self._read("limits", limits.KEPT_LIMITS_BYTES) or b""
        except OSError:
            return b""

    def save_limits(self, data: bytes) -> None:
        """Replace them, whole or not at all.

        Raises:
            StorageError: not saved.
        """
        try:
            write_file(self._disk, self._root, "limits", data)
        except OSError as error:
            raise storage_error(error, self._path_of("limits")) from error

    @property
    def added_path(self) -> str:
        """The folder of contents that were added."""
        return self._path_of(_ADDED)

    def load_added(self) -> list[tuple[HashKey, bytes]]:
        """Return the records of contents that were added, by key, as many as one process serves.

        Check them.
        """
        with ExitStack() as undo:
            try:
                folder = self._disk.open_directory(self._root, _ADDED)
            except OSError:
                return []
            undo.callback(self._disk.close, folder)
            found = []
            names = sorted(filter(_HASH_KEY_NAME.match, self._disk.names(folder)))
            for name in names[: limits.DESCRIPTORS]:
                try:
                    data = read_file(self._disk, folder, name, limits.ADDED_BYTES)
                except OSError:
                    data = b""
                found.append((HashKey(bytes.fromhex(name)), data or b""))
        return found

    def save_added(self, key: HashKey, data: bytes) -> None:
        """Replace one record, whole or not at all.

        Raises:
            StorageError: not saved.
        """
        with ExitStack() as undo:
            try:
                if self._disk.facts_at(self._root, _ADDED) is None:
                    self._disk.make_directory(self._root, _ADDED)
                    self._disk.sync(self._root)
                folder = self._disk.open_directory(self._root, _ADDED)
                undo.callback(self._disk.close, folder)
                write_file(self._disk, folder, key.hex(), data)
            except OSError as error:
                raise storage_error(error, self.added_path) from error

    def drop_added(self, key: HashKey) -> None:
        """Remove one record; none is fine.

        Raises:
            StorageError: it is still there.
        """
        with ExitStack() as undo:
            try:
                if self._disk.facts_at(self._root, _ADDED) is None:
                    return
                folder = self._disk.open_directory(self._root, _ADDED)
                undo.callback(self._disk.close, folder)
                with suppress(FileNotFoundError):
                    self._disk.unlink(folder, key.hex())
                self._disk.sync(folder)
            except OSError as error:
                raise storage_error(error, self.added_path) from error

    def load_neighbours(self) -> bytes:
        """Return what was saved last; empty when there is nothing usable. Check what is in it."""
        try:
            return self._read("neighbours", limits.SAVED_FILE_BYTES) or b""
        except OSError:
            return b""

    def save_neighbours(self, data: bytes) -> None:
        """Replace the saved neighbours, whole or not at all.

        Raises:
            LocalProtocolError: more than ``limits.SAVED_FILE_BYTES``.
            StorageError: not saved.
        """
        if len(data) > limits.SAVED_FILE_BYTES:
            raise LocalProtocolError(f"{len(data)} bytes of neighbours")
        try:
            write_file(self._disk, self._root, "neighbours", data)
        except OSError as error:
            raise storage_error(error, self._path_of("neighbours")) from error
