"""What a download leaves beside its part, so that a restart need not hash everything again.

Layout (integers big-endian)::

    16  magic, with the version in it
    32  hash_key
     4  length of the metadata
     n  encoded metadata, proved by the hash_key: a restarted node serves without asking anybody
        padding to STATE_ALIGN_BYTES
    slot 0, slot 1, each padded to STATE_ALIGN_BYTES:
         8  generation
         m  bitfield
        32  SHA-256 over hash_key, identity of the part, generation and bitfield

The slots are written alternately: a torn write leaves the other one. The checksum also covers what
the part *was* (device, inode and size of each file, never written down), so bits of another part,
of a torn slot or of a damaged one are all the same thing: no bits, and the part is hashed again.

Job: encode, decode, hold the lock. Does NOT sync the data whose bits it writes; the caller does,
before. Threat: crashes, damaged disks, other versions of p2pdist; never trusted without the
checksum, never a reason to fail. Tests: ``test_statefile``.
"""

from __future__ import annotations

import errno
import hashlib
import os
import struct

from attrs import define, field

from p2pdist import limits
from p2pdist.content import Metadata, decode_metadata
from p2pdist.errors import AlreadyRunning, MalformedMessage, RemoteProtocolError
from p2pdist.ids import HASH_KEY_BYTES, HashKey
from p2pdist.logs import new_logger
from p2pdist.storage.disk import Access, IDisk
from p2pdist.storage.pieces import Bitfield
from p2pdist.workers import IWorkers

MAGIC = b"p2pdist state 1\n"
_HEADER = struct.Struct(f">{len(MAGIC)}s{HASH_KEY_BYTES}sI")
_GENERATION = struct.Struct(">Q")
_CHECKSUM_BYTES = 32
_log = new_logger()


def _aligned(size: int) -> int:
    return -(-size // limits.STATE_ALIGN_BYTES) * limits.STATE_ALIGN_BYTES


def slot_offsets(metadata_length: int, count: int) -> tuple[int, int]:
    """Return where the two slots begin for metadata of that length and ``count`` pieces."""
    first = _aligned(_HEADER.size + metadata_length)
    return first, first + _aligned(slot_bytes(count))


def slot_bytes(count: int) -> int:
    """Return the bytes of one slot without padding."""
    return _GENERATION.size + (count + 7) // 8 + _CHECKSUM_BYTES


def encode_slot(hash_key: HashKey, identity: bytes, generation: int, have: Bitfield) -> bytes:
    """Return one slot; ``identity`` is :func:`p2pdist.storage.tree.identity` of the part."""
    body = _GENERATION.pack(generation) + have.to_bytes()
    return body + hashlib.sha256(hash_key + identity + body).digest()


def decode_slot(
    data: bytes, hash_key: HashKey, identity: bytes, count: int
) -> tuple[int, Bitfield] | None:
    """Return generation and bits, or ``None`` for anything but a slot of exactly this part."""
    if len(data) != slot_bytes(count):
        return None
    body, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
    if hashlib.sha256(hash_key + identity + body).digest() != checksum:
        return None
    try:
        have = Bitfield.from_bytes(body[_GENERATION.size :], count)
    except MalformedMessage:
        return None
    return _GENERATION.unpack_from(body)[0], have


@define(eq=False)
class StateFile:
    """An open and locked state file.

    Attributes:
        path: for people.
        metadata: what the file embeds; ``None`` when it is new, damaged or of another version.
    """

    disk: IDisk
    path: str
    name: str
    hash_key: HashKey
    metadata: Metadata | None = field(init=False, default=None, repr=False)
    _root: int
    _handle: int
    _offsets: tuple[int, int] = field(init=False, default=(0, 0))
    _slot: int = field(init=False, default=1)
    _generation: int = field(init=False, default=0)

    @classmethod
    def open(
        cls, disk: IDisk, directory: str, name: str, hash_key: HashKey, *, create: bool
    ) -> StateFile | None:
        """Open and lock the state file, and read its metadata.

        Returns:
            ``None`` when there is none and ``create`` is false.

        Raises:
            AlreadyRunning: somebody else holds it.
            OSError: it cannot be opened or read.
        """
        path = os.path.join(directory, name)  # noqa: PTH118 -- text for people
        root = disk.open_root(directory)
        try:
            handle = cls._open_locked(disk, root, name, path, create)
        except BaseException:
            disk.close(root)
            raise
        if handle is None:
            disk.close(root)
            return None
        state = cls(disk=disk, path=path, name=name, hash_key=hash_key, root=root, handle=handle)
        try:
            state._read_metadata()
        except BaseException:
            state.close()
            raise
        return state

    @staticmethod
    def _open_locked(disk: IDisk, root: int, name: str, path: str, create: bool) -> int | None:
        while True:
            try:
                handle = disk.open_file(root, name, Access.UPDATE)
            except FileNotFoundError:
                if not create:
                    return None
                try:
                    handle = disk.open_file(root, name, Access.CREATE)
                except FileExistsError:
                    continue  # somebody was quicker
            try:
                locked = disk.lock(handle)
                # Its last holder may have finished and unlinked it between our open and lock.
                named = disk.facts_at(root, name) if locked else None
                current = named is not None and named.inode == disk.facts(handle).inode
            except BaseException:
                disk.close(handle)
                raise
            if current:
                return handle
            disk.close(handle)
            if not locked:
                raise AlreadyRunning(f"{path} is in use: another process downloads the same")

    def _read_metadata(self) -> None:
        head = self.disk.read(self._handle, 0, _HEADER.size)
        if len(head) != _HEADER.size:
            return
        magic, hash_key, length = _HEADER.unpack(head)
        if magic != MAGIC or hash_key != self.hash_key or length > limits.METADATA_BYTES:
            return
        try:
            metadata = decode_metadata(
                self.disk.read(self._handle, _HEADER.size, length), self.hash_key
            )
        except RemoteProtocolError:
            return
        self._adopt(metadata, length)

    def _adopt(self, metadata: Metadata, length: int) -> None:
        self.metadata = metadata
        self._offsets = slot_offsets(length, metadata.count)

    def begin(self, metadata: Metadata) -> None:
        """Write the metadata into a file that has none, durably except for the file's name.

        Comes, like :meth:`clear`, before anything that changes what the part is.

        Raises:
            OSError: the file has to be taken for damaged.
        """
        encoded = metadata.encode()
        self.disk.truncate(self._handle, 0)
        header = _HEADER.pack(MAGIC, self.hash_key, len(encoded))
        self.disk.write(self._handle, 0, header + encoded)
        self._adopt(metadata, len(encoded))
        # A full disk must not keep us from writing down what was still stored.
        self.disk.allocate(self._handle, self._offsets[1] + slot_bytes(metadata.count))
        self.disk.sync(self._handle)

    def clear(self) -> None:
        """Make all bits void, durably; comes before anything that changes what the part is.

        A new part may get the inode of the old one, and a cut one its old size back.

        Raises:
            OSError: the part must not be touched.
        """
        assert self.metadata is not None
        for offset in self._offsets:
            self.disk.write(self._handle, offset, bytes(slot_bytes(self.metadata.count)))
        self.disk.sync(self._handle)

    def load(self, identity: bytes) -> Bitfield | None:
        """Return the newest bits of the part with this identity, or ``None`` without any."""
        assert self.metadata is not None
        count = self.metadata.count
        best: Bitfield | None = None
        for slot, offset in enumerate(self._offsets):
            try:
                data = self.disk.read(self._handle, offset, slot_bytes(count))
            except OSError as error:
                if error.errno != errno.EIO:
                    raise
                continue
            found = decode_slot(data, self.hash_key, identity, count)
            if found is not None and found[0] > self._generation:
                self._generation, best = found
                self._slot = slot
        return best

    def save(self, identity: bytes, have: Bitfield) -> None:
        """Write the bits into the older slot, durably.

        All data they stand for must be durable already. After a failure the same slot is written
        again next time: the other one is the last that is known to be good.

        Raises:
            OSError: the slot is in doubt.
        """
        slot = 1 - self._slot
        self._generation += 1
        data = encode_slot(self.hash_key, identity, self._generation, have)
        self.disk.write(self._handle, self._offsets[slot], data)
        self.disk.sync_data(self._handle)
        self._slot = slot

    def remove(self) -> None:
        """Unlink the file, durably; the lock stays until :meth:`close`."""
        self.disk.unlink(self._root, self.name)
        self.disk.sync(self._root)

    def close(self) -> None:
        """Release lock and handles."""
        self.disk.close(self._handle)
        self.disk.close(self._root)


async def discard_state(workers: IWorkers, state: StateFile) -> None:
    """Remove and close a state file that has done its work, in a worker; never fails."""
    try:
        await workers.run(state.remove)
    except OSError as error:  # swept away at the next start
        _log.warn("{path} is left behind: {error}", path=state.path, error=error)
    await workers.run(state.close)
