"""One content on this disk: which pieces are here, reading and writing them, publishing.

States of a piece, and what moves it on:

=========  ======================================================================
missing    not in ``have``
written    in ``have``: hashed in memory, then written (:meth:`Store.write_piece`)
durable    in ``have`` and on disk: data synced, then its bit (:meth:`Store.sync`)
missing    withdrawn: the disk gave something else back, or a sync failed and it is not there
=========  ======================================================================

Apart from that, a piece in ``have`` is *verified* when its bytes were hashed since the start of the
process and its files look unchanged; any other is hashed again before it is served.

Job: keep ``have`` true whatever disk and crashes do. Does NOT choose pieces or talk to peers, and
opens nothing (``locate``, ``create``). Threat: wrong bytes from peers, files that change under us,
disks that fail or are full, syncs that fail. All state changes in the reactor thread; what blocks
runs in workers. Tests: ``test_store``, ``test_crash``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, DeferredLock

from p2pdist import limits
from p2pdist.content import Metadata
from p2pdist.errors import LocalProtocolError, StorageError
from p2pdist.ids import HashKey
from p2pdist.logs import new_logger
from p2pdist.storage.disk import IDENTITY_BYTES, STAMP_BYTES, TRANSIENT
from p2pdist.storage.effort import Effort
from p2pdist.storage.groupsync import GroupSync
from p2pdist.storage.loan import Loan
from p2pdist.storage.mending import Mending, begin
from p2pdist.storage.piecefiles import PieceFiles
from p2pdist.storage.pieces import Bitfield, Geometry
from p2pdist.storage.place import Place
from p2pdist.storage.publish import publish
from p2pdist.storage.records import Record, keep_record
from p2pdist.storage.statefile import StateFile, discard_state
from p2pdist.storage.survey import check_sha256, geometry_of, run
from p2pdist.storage.tree import FileTree, identity
from p2pdist.storage.unread import Unread
from p2pdist.storage.unsynced import Unsynced


@define(eq=False, repr=False)
class Store:
    """A content on disk; made by ``locate`` and ``create``, ended by :meth:`close`.

    Attributes:
        place: where it is.
        metadata: what it should be.
        hash_key: its name.
        have: the pieces that are here, verified once; the only truth about them. Read it, copy it,
            never change it.
        on_lost: called in the reactor thread with the index of each piece that is withdrawn.
        on_found: likewise, of each that the disk would not give and does now.
        geometry: how the content is cut.
        effort: what writing pieces costs.
    """

    log = new_logger()

    place: Place
    metadata: Metadata
    hash_key: HashKey
    have: Bitfield
    _tree: FileTree = field(kw_only=True)
    _stamps: bytearray = field(kw_only=True, converter=bytearray)
    _state: StateFile | None = field(kw_only=True)
    _sha256: str | None = field(kw_only=True)
    _verified: Bitfield = field(kw_only=True)
    on_lost: Callable[[int], None] | None = field(init=False, default=None)
    on_found: Callable[[int], None] | None = field(init=False, default=None)
    geometry: Geometry = field(init=False)
    effort: Effort = field(init=False, factory=Effort)
    _pieces: PieceFiles = field(init=False)
    _writer: PieceFiles = field(init=False)
    """The same, but while a published content is mended."""
    _unread: Unread = field(init=False)
    _unsynced: Unsynced = field(init=False)
    _withdrawn: bool = field(init=False, default=False)
    """The bits on disk hold a piece that ``have`` does not."""
    _doubtful: bool = field(init=False, default=False)
    """The last sync failed; nothing more is written until one succeeds."""
    _sync_failures: int = field(init=False, default=0)
    _changes: int = field(init=False, default=0)
    """How often a file was found changed."""
    _touched: bool = field(init=False, default=False)
    """A file was found changed since it was published."""
    _closed: bool = field(init=False, default=False)
    _turn: DeferredLock = field(init=False, factory=DeferredLock)
    """Sync, publish and close, one at a time."""
    _syncs: GroupSync = field(init=False)
    _awake: bool = field(init=False, default=True)  # handles may be open
    _jobs: int = field(init=False, default=0)
    _idle: Deferred[None] | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self.geometry = geometry_of(self.metadata)
        self._unsynced = Unsynced(self.geometry.size_of)
        self._pieces = self._writer = PieceFiles(self._tree, self.metadata, self.geometry)
        clock, failed = self.place.clock, self._timed_sync_failed
        self._unread = Unread(clock, self._look_again, self._working, self._found)
        self._syncs = GroupSync(clock, self._turn, self._sync, failed)

    def __repr__(self) -> str:
        return f"<Store {self.path}: {self.have.count_set} of {self.have.count} pieces>"

    @property
    def complete(self) -> bool:
        """Whether every piece is here."""
        return self.have.complete

    @property
    def published(self) -> bool:
        """Whether it stands under its final name; then it is only read."""
        return self._state is None

    @property
    def path(self) -> str:
        """Return the final path, whether the content stands there already or not."""
        if self.published:
            return self._tree.path
        return self.place.target_path(self.metadata.name)

    # --- writing ---

    def write_piece(self, index: int, data: bytes | memoryview) -> Deferred[None]:
        """Verify a piece and write it.

        A piece that is here already is left alone, whatever ``data`` is. Two writes of the same
        piece at the same time are both verified and both written.

        Returns:
            Fires when the piece is in ``have``; it becomes durable with the next sync. Fails with
            HashMismatch (wrong bytes or wrong size), DiskFull (the piece stays missing, nothing
            else is lost), StorageError (disk trouble, or the store is closed or published).

        Raises:
            LocalProtocolError: no such piece, as a failure too.
        """
        return Deferred.fromCoroutine(self._write_piece(index, data))

    async def _write_piece(self, index: int, data: bytes | memoryview) -> None:
        self._check_open()
        if self.have.has(index):
            return
        if self._doubtful:
            await self.sync()
            self._check_open()
        if self._state is None:
            raise StorageError(
                f"{self.path} changed after it was complete; it is not written to any more"
            )
        with self._working():
            try:
                write = partial(self._writer.write, index, data, self.place.timer)
                self.effort.add(await self._past_failing_syncs(write))
            except OSError as error:
                raise self._explain(error) from error
            self._written(index)

    async def _past_failing_syncs(self, write: Callable[[], Any]) -> Any:
        """Write in a worker, and once more if a sync failed meanwhile: see :meth:`_write_again`."""
        while True:
            failures = self._sync_failures
            result = await self.place.workers.run(write)
            if failures == self._sync_failures:
                return result

    def _written(self, index: int) -> None:
        self.have.set(index)
        self._verified.set(index)
        self._unsynced.mark((index,))
        self._sync_within(0.0 if self._unsynced.size >= limits.SYNC_BYTES else limits.SYNC_EVERY_S)

    def _explain(self, error: OSError) -> StorageError:
        left = map(self.geometry.size_of, self.have.missing())
        return self.place.explain(error, self._tree.path, self.metadata.name, left)

    # --- syncing ---

    def mark_unsynced(self, indices: Iterable[int]) -> None:
        """Treat pieces as just written: they were found on disk, durable or not."""
        self._unsynced.mark(indices)

    def sync(self) -> Deferred[None]:
        """Make all pieces written so far durable, then their bits.

        Runs by itself every SYNC_BYTES or SYNC_EVERY_S; calls that wait for a turn share it.

        Returns:
            Fires when done. Fails with StorageError; then the pieces since the last good sync have
            been read again, those that are not there have been withdrawn, and nothing more is
            written until a sync succeeds.
        """
        return self._syncs.call()

    async def _sync(self) -> None:
        self._check_open()
        await self._flush()

    async def _flush(self) -> None:
        """Data, then bits. The caller holds the turn."""
        if self._state is None or not (self._unsynced or self._withdrawn):
            return
        batch = self._unsynced.batch()
        # Whatever is in `have` now was written before now: the sync below covers it.
        have = self.have.copy()
        stamps = bytes(self._stamps)
        self._withdrawn = False
        try:
            await self.place.workers.run(partial(self._writer.sync, batch))
        except OSError as error:
            self._sync_failed()
            await self._write_again(tuple(self._unsynced))
            raise self._explain(error) from error
        try:
            state = self._state
            await self.place.workers.run(lambda: state.save(identity(stamps), have))
        except OSError as error:
            self._sync_failed()
            raise self._explain(error) from error
        self._doubtful = False
        self._unsynced.synced(batch)
        if self._unsynced or self._withdrawn:
            self._sync_within(limits.SYNC_EVERY_S)

    def _sync_failed(self) -> None:
        self._doubtful = self._withdrawn = True
        self._sync_failures += 1
        self._sync_within(limits.SYNC_EVERY_S)

    async def _write_again(self, indices: Iterable[int]) -> None:
        """After a failed sync: read what should have become durable, and write it once more.

        The kernel marks pages clean whose write-back failed, so a second sync proves nothing about
        them (the fsync trouble PostgreSQL found in 2018). Pages written again are dirty again, and
        the next sync does prove them.
        """
        for index in indices:
            if not self.have.has(index):
                continue
            try:
                there = await self.place.workers.run(partial(self._writer.write_again, index))
            except OSError:
                there = False
            if not there:
                self._withdraw(index)

    def _sync_within(self, delay_s: float) -> None:
        if not self._closed and self._state is not None:
            self._syncs.within(delay_s)

    def _timed_sync_failed(self, error: StorageError) -> None:
        if not self._closed:
            self.log.warn("{path} could not be synced: {error}", path=self.path, error=error)

    # --- reading ---

    def read(
        self, index: int, offset: int, size: int, *, lend: bool = False
    ) -> Deferred[bytes | Loan]:
        """Read part of a piece that is in ``have``, to serve it; ``lend`` allows a Loan of it.

        Returns:
            Fires with ``size`` bytes. Fails with StorageError when the piece is not here, the
            store is closed, or the disk gave wrong bytes or none: then the piece is withdrawn.

        Raises:
            LocalProtocolError: the range is not inside the piece, as a failure too.
        """
        return Deferred.fromCoroutine(self._read(index, offset, size, lend))

    def check(self, index: int) -> Deferred[None]:
        """Read a piece in ``have`` from the device and withdraw it if it is wrong.

        Returns:
            Fires when that is done; never fails.
        """
        return Deferred.fromCoroutine(self._check(index))

    async def _check(self, index: int) -> None:
        with suppress(StorageError):
            await self._read(index, 0, 0, lend=False, fresh=True)

    async def _read(
        self, index: int, offset: int, size: int, lend: bool, fresh: bool = False
    ) -> bytes | Loan:
        self._check_open()
        self._awake = True
        if not self.have.has(index):
            raise StorageError(f"piece {index} is not here")
        if not 0 <= offset <= offset + size <= self.geometry.size_of(index):
            raise LocalProtocolError(f"bytes {offset}+{size} of piece {index}")
        with self._working():
            width = STAMP_BYTES if self.published else IDENTITY_BYTES
            verified, changes = self._verified.has(index) and not fresh, self._changes
            files = self._pieces.files_of(index)
            if verified:
                files = self._pieces.files_in(index, offset, size)
            expected = {file: self._stamp(file)[:width] for file in files}
            fetch = partial(
                self._pieces.fetch, index, offset, size, expected, verified, lend, fresh
            )
            try:
                fetched = await self.place.workers.run(fetch)
            except OSError as error:
                if error.errno not in TRANSIENT:
                    self._withdraw(index)
                    self._unread.add(index)
                raise self._explain(error) from error
            if fetched.data is None:
                self._withdraw(index)
            elif changes == self._changes:
                self._verified.set(index)
            for file, stamp in fetched.changed.items():
                self._file_changed(file, stamp)
            if fetched.data is not None:
                return fetched.data
            raise StorageError(f"piece {index} of {self.path} is damaged or was changed")

    def rest(self) -> None:
        """Give file handles back if it is published; the next read opens what it needs."""
        if self._awake and self.published and not self._closed:
            self._awake = False
            Deferred.fromCoroutine(self._rest())

    async def _rest(self) -> None:
        with self._working():
            await self.place.workers.run(self._tree.rest)

    def _stamp(self, file: int) -> bytes:
        return bytes(self._stamps[file * STAMP_BYTES : (file + 1) * STAMP_BYTES])

    def _file_changed(self, file: int, stamp: bytes) -> None:
        """Somebody touched a file: each of its pieces is hashed again before it is served."""
        self.log.info("{path} was changed by somebody else", path=self._tree.path_of(file))
        self._changes += 1
        self._touched = self.published
        self._stamps[file * STAMP_BYTES : (file + 1) * STAMP_BYTES] = stamp
        for index in self._pieces.pieces_of(file):
            self._verified.clear(index)

    def _withdraw(self, index: int) -> None:
        if not self.have.has(index):
            return
        self.have.clear(index)
        self._verified.clear(index)
        self._unsynced.forget(index)
        self._withdrawn = True
        self._sync_within(0.0)
        self.log.warn("piece {index} of {path} is lost", index=index, path=self.path)
        if self.on_lost is not None:
            self.on_lost(index)

    async def _look_again(self, index: int) -> bool:
        """Read a withdrawn piece; if it is good, write it again: a sync may have failed before."""
        look = self._pieces.there if self._state is None else self._writer.write_again
        return bool(await self._past_failing_syncs(partial(look, index)))

    def _found(self, index: int) -> None:
        if not self.have.has(index):
            self._written(index)
            if self.on_found is not None:
                self.on_found(index)

    # --- mending ---

    def mend(self) -> Deferred[None]:
        """Get ready to write what the disk lost of a published content (see ``mending``).

        Fires when missing pieces may be written; :meth:`publish` comes again then. Fails with
        StorageError when somebody changed it, or it cannot or must not be written to.
        """
        return Deferred.fromCoroutine(self._mend())

    async def _mend(self) -> None:
        async with self._turn:
            self._check_open()
            if self._state is not None:
                return
            if self._touched:
                raise StorageError(f"{self.path} was changed after completion")
            opening = partial(begin, self.place, self.metadata, bytes(self._stamps), self.have)
            self.mend_with(await run(self.place.workers, self._tree.path, opening))
        self.log.warn("{path} is damaged, though nobody changed it: mending it", path=self.path)

    def mend_with(self, mending: Mending) -> None:
        """Take over what mending needs."""
        self._state = mending.state
        self._writer = PieceFiles(mending.tree, self.metadata, self.geometry)
        self._withdrawn = True
        self._sync_within(0.0)

    # --- the end ---

    def publish(self) -> Deferred[None]:
        """Give the complete content its final name; again is fine.

        Returns:
            Fires when it stands there durably, part and state file are gone and the record is
            kept. Fails with StorageError (ContentConflict when something else stands there, a
            sentence of its own when the descriptor's sha256 differs): the part stays, and
            publishing may be tried again.

        Raises:
            LocalProtocolError: pieces are missing, as a failure too.
        """
        return Deferred.fromCoroutine(self._publish())

    async def _publish(self) -> None:
        async with self._turn:
            self._check_open()
            if self._state is None:
                return
            if not self.complete:
                raise LocalProtocolError("published with pieces missing")
            await self._flush()
            await self.check_sha256()
            if not self.complete:
                raise StorageError(f"{self.path}: pieces were lost while it was being published")
            name, replace = self.metadata.name, self.place.replace
            deliver = partial(publish, self._tree, name, self.hash_key, replace=replace)
            stamps = await run(self.place.workers, self._tree.path, deliver)
            self._stamps = bytearray(stamps)
            await self.keep_record()
            state, self._state = self._state, None
            self._syncs.cancel()
            if self._writer is not self._pieces:
                await self.place.workers.run(self._writer.tree.close)
                self._writer = self._pieces
            await discard_state(self.place.workers, state)

    async def check_sha256(self) -> None:
        """Compare the content with the descriptor's sha256, if it names one; see ``survey``."""
        workers, name = self.place.workers, self.metadata.name
        await check_sha256(workers, self._tree, name, self._sha256, self._check_open)

    async def keep_record(self) -> None:
        """Write down that the content is complete and how its files look; never fails."""
        record = Record(self.metadata, self._tree.directory, self._tree.top, bytes(self._stamps))
        await keep_record(self.place, self.hash_key, record, self.path)

    def close(self) -> Deferred[None]:
        """Sync data, then bits; release files and lock; again is fine.

        Calls under way finish first, later ones fail with StorageError. Never fails itself: what
        cannot be synced is logged and fetched again another time.

        Returns:
            Fires when nothing is open any more.
        """
        return Deferred.fromCoroutine(self._close())

    async def _close(self) -> None:
        again, self._closed = self._closed, True
        self._unread.stop()
        self._syncs.cancel()
        async with self._turn:
            if again:
                return
            if self._jobs:
                self._idle = Deferred()
                await self._idle
            try:
                await self._flush()
            except StorageError as error:
                self.log.warn("not all of {path} is kept: {error}", path=self.path, error=error)
            finally:
                await self.place.workers.run(self._release)

    def _release(self) -> None:
        self._tree.close()
        self._writer.tree.close()
        if self._state is not None:
            self._state.close()

    def _check_open(self) -> None:
        if self._closed:
            raise StorageError(f"{self.path} is closed")

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Count a call that uses the files, so that :meth:`close` waits for it."""
        self._jobs += 1
        try:
            yield
        finally:
            self._jobs -= 1
            if not self._jobs and self._idle is not None:
                self._idle.callback(None)
