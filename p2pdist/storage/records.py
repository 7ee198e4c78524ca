"""Records of complete contents: what was verified, where, and how the files looked then.

A content whose files still look the same (device, inode, size, mtime, ctime) is trusted without
hashing it again (decision 20). Records live in the state directory, so nothing stays beside the
user's files and read-only media can be seeded.

Job: encode, decode, load, save. Does NOT look at the files. Threat: damaged records and those of
other versions; they count as absent. Tests: ``test_records``.
"""

from __future__ import annotations

import hashlib
import os
from functools import partial

import msgpack
from attrs import field, frozen

from p2pdist import limits
from p2pdist.content import Metadata, decode_metadata
from p2pdist.errors import RemoteProtocolError, StorageError
from p2pdist.ids import HashKey
from p2pdist.logs import new_logger
from p2pdist.storage.disk import STAMP_BYTES, IDisk, read_file, write_file
from p2pdist.storage.place import Place
from p2pdist.storage.survey import run

FOLDER = "complete"
MAGIC = b"p2pdist complete 1\n"
_CHECKSUM_BYTES = 32
_log = new_logger()


@frozen
class Record:
    """One complete content.

    Attributes:
        metadata: of the content.
        directory: absolute path of the folder it lies in.
        top: what it is called there.
        stamps: :attr:`~p2pdist.storage.disk.FileFacts.stamp` of each file, one after the other.
    """

    metadata: Metadata = field(repr=False)
    directory: str
    top: str
    stamps: bytes = field(repr=False)

    def encode(self) -> bytes:
        """Return magic, SHA-256 and msgpack ``[directory, top, metadata, stamps]``."""
        body: bytes = msgpack.packb(
            [
                os.fsencode(self.directory),
                os.fsencode(self.top),
                self.metadata.encode(),
                self.stamps,
            ]
        )
        return MAGIC + hashlib.sha256(body).digest() + body

    @classmethod
    def decode(cls, data: bytes, hash_key: HashKey) -> Record | None:
        """Return the record of ``hash_key`` in ``data``, or ``None`` for anything else."""
        head = len(MAGIC) + _CHECKSUM_BYTES
        body = data[head:]
        if data[:head] != MAGIC + hashlib.sha256(body).digest():
            return None
        try:
            directory, top, encoded, stamps = msgpack.unpackb(
                body,
                max_array_len=4,
                max_map_len=0,
                max_ext_len=0,
                max_str_len=0,
                max_bin_len=limits.RECORD_BYTES,
            )
            metadata = decode_metadata(encoded, hash_key)
            record = cls(metadata, os.fsdecode(directory), os.fsdecode(top), bytes(stamps))
        except (ValueError, TypeError, RemoteProtocolError):
            return None
        if len(record.stamps) != STAMP_BYTES * len(metadata.files):
            return None
        return record


def load_record(disk: IDisk, state_directory: str, hash_key: HashKey) -> Record | None:
    """Return the record of a content, or ``None`` when there is no usable one."""
    try:
        folder = _open_folder(disk, state_directory)
    except OSError:
        return None
    try:
        data = read_file(disk, folder, hash_key.hex(), limits.RECORD_BYTES)
    except OSError:
        return None
    finally:
        disk.close(folder)
    return None if data is None else Record.decode(data, hash_key)


def save_record(disk: IDisk, state_directory: str, hash_key: HashKey, record: Record) -> None:
    """Write the record of a content, replacing any other of it.

    Raises:
        OSError: it is not written.
    """
    root = disk.open_root(state_directory)
    try:
        if disk.facts_at(root, FOLDER) is None:
            disk.make_directory(root, FOLDER)
            disk.sync(root)
    finally:
        disk.close(root)
    folder = _open_folder(disk, state_directory)
    try:
        write_file(disk, folder, hash_key.hex(), record.encode())
    finally:
        disk.close(folder)


async def keep_record(place: Place, hash_key: HashKey, record: Record, path: str) -> None:
    """Save a record in a worker, where records are kept; never fails, but says so in the log.

    Args:
        place: of the content.
        hash_key: of it.
        record: of it.
        path: what to call it in the log.
    """
    if place.state_directory is None:
        return
    save = partial(save_record, place.disk, place.state_directory, hash_key, record)
    try:
        await run(place.workers, place.state_directory, save)
    except StorageError as error:
        _log.warn(
            "{path} is complete but will be hashed again at the next start: {error}",
            path=path,
            error=error,
        )


def _open_folder(disk: IDisk, state_directory: str) -> int:
    root = disk.open_root(state_directory)
    try:
        return disk.open_directory(root, FOLDER)
    finally:
        disk.close(root)
