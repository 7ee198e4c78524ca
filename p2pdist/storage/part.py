"""Open the part of a download: a new one, one to resume, or what is left of one.

Job: bring part and state file into agreement and hand over a :class:`~p2pdist.storage.store.Store`
that may be written to. Bits are trusted only for exactly the part they were written for (device,
inode and size of each file: decision 20), for data is synced before bits; otherwise the whole part
is hashed. Pieces that were written and not yet recorded when the last process died are looked for
where the part has bytes and no bit (``limits.RESUME_HASH_BYTES`` at most). Does NOT look at the
target. Threat: crashes anywhere in between, and whatever else stands under the part's name. Tests:
``test_create``, ``test_locate``, ``test_resume``, ``test_crash``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TypeVar

from attrs import define, field

from p2pdist import limits
from p2pdist.content import Metadata
from p2pdist.descriptor import Descriptor
from p2pdist.errors import AlreadyRunning, DiskFull, HashMismatch
from p2pdist.ids import HashKey, short
from p2pdist.source import Progress
from p2pdist.storage.disk import remove_tree
from p2pdist.storage.layout import STATE_SUFFIX, part_name, state_name
from p2pdist.storage.pieces import Bitfield, Geometry
from p2pdist.storage.place import Place
from p2pdist.storage.statefile import StateFile
from p2pdist.storage.store import Store
from p2pdist.storage.survey import geometry_of, good_pieces, matching_pieces, run
from p2pdist.storage.tree import FileTree, identity

T = TypeVar("T")


async def open_part(
    place: Place,
    state: StateFile,
    metadata: Metadata,
    descriptor: Descriptor,
    progress: Progress,
    reusable: Bitfield | None = None,
) -> Store:
    """Open the part that the locked ``state`` stands beside, or make it.

    Args:
        place: where.
        state: taken over: closed with the store, or here on failure.
        metadata: of the content.
        descriptor: for its sha256.
        progress: called when the part has to be hashed.
        reusable: pieces of the existing target that are copied instead of fetched.

    Raises:
        DiskFull: there is not enough space; what was made here is removed again.
        StorageError: something else stands in the way, or the disk failed.
    """
    try:
        opening = await run(
            place.workers,
            place.directory,
            partial(_Opening.begin, place, state, metadata, descriptor),
        )
    except BaseException:
        await place.workers.run(state.close)
        raise
    store: Store | None = None
    try:
        store = await opening.open(progress)
        await store.sync()
        if reusable is not None:
            await opening.copy_from_target(store, reusable)
    except BaseException:
        if store is None:
            await place.workers.run(opening.abandon)
        else:
            await store.close()
        raise
    return store


async def discard(place: Place, name: str, hash_key: HashKey) -> None:
    """Remove part and state file of a content that is complete elsewhere, unless in use."""

    def remove() -> None:
        state = StateFile.open(
            place.disk, place.directory, state_name(name, hash_key), hash_key, create=False
        )
        if state is None:
            return
        root = place.disk.open_root(place.directory)
        try:
            remove_tree(place.disk, root, part_name(name, hash_key))
            state.remove()
        finally:
            place.disk.close(root)
            state.close()

    with suppress(OSError, AlreadyRunning):  # tried again at the next start
        await place.workers.run(remove)


def find_state(place: Place, descriptor: Descriptor) -> StateFile | None:
    """Open the state file of a download begun before. Blocks.

    Without a name in the descriptor it is found by its HASH8.

    Raises:
        AlreadyRunning: it is in use.
        OSError: the folder or the file cannot be read.
    """
    hash_key = descriptor.hash_key
    if descriptor.name is not None:
        names = [state_name(descriptor.name, hash_key)]
    else:
        ending = f".{short(hash_key)}{STATE_SUFFIX}"
        root = place.disk.open_root(place.directory)
        try:
            names = [name for name in place.disk.names(root) if name.endswith(ending)]
        finally:
            place.disk.close(root)
    for name in names:
        state = StateFile.open(place.disk, place.directory, name, hash_key, create=False)
        if state is None:
            continue
        if state.metadata and state_name(state.metadata.name, hash_key) == name:
            return state
        state.close()
    return None


@define(eq=False)
class _Opening:
    """What is known while a part is being opened."""

    place: Place
    state: StateFile
    metadata: Metadata
    descriptor: Descriptor
    tree: FileTree
    leftover: bool
    """A part was there before."""
    geometry: Geometry = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.geometry = geometry_of(self.metadata)

    @classmethod
    def begin(
        cls, place: Place, state: StateFile, metadata: Metadata, descriptor: Descriptor
    ) -> _Opening:
        top = part_name(metadata.name, state.hash_key)
        tree = FileTree(place.disk, place.directory, top, metadata.files, writable=True)
        try:
            leftover = place.disk.facts_at(tree.root, top) is not None
        except BaseException:
            tree.close()
            raise
        return cls(place, state, metadata, descriptor, tree, leftover)

    async def run(self, function: Callable[[], T]) -> T:
        return await run(self.place.workers, self.tree.path, function)

    async def open(self, progress: Progress) -> Store:
        trusted = await self.run(self._trusted_bits)
        if trusted is not None:
            return await self._resumed(trusted)
        have = Bitfield(self.geometry.count)
        if self.leftover:
            have = await matching_pieces(
                self.place.workers, self.tree, self.metadata, progress, ours=True
            )
        await self.run(partial(self._make, have))
        store = await self._store(have, verified=have.copy())
        store.mark_unsynced(have)  # they were found, not synced
        return store

    async def _resumed(self, have: Bitfield) -> Store:
        """Trust the bits; look at what lies on disk without one, which was written last."""
        unrecorded = await self.run(partial(self._unrecorded, have))
        found = await good_pieces(self.place.workers, self.tree, self.metadata, unrecorded)
        verified = Bitfield(self.geometry.count)
        for index in found:
            have.set(index)
            verified.set(index)
        store = await self._store(have, verified=verified)
        store.mark_unsynced(found)
        return store

    def _unrecorded(self, have: Bitfield) -> list[int]:
        """Return the pieces without a bit that do not lie in holes, as many as may be hashed."""
        missing = set(have.missing())
        missing.difference_update(self.tree.holes(self.geometry.piece_length, reserved=True))
        room = limits.RESUME_HASH_BYTES
        chosen: list[int] = []
        for index in sorted(missing):
            room -= self.geometry.size_of(index)
            if room < 0:
                break
            chosen.append(index)
        return chosen

    def _trusted_bits(self) -> Bitfield | None:
        if self.state.metadata is None or not self.leftover or not self.tree.lengths_right():
            return None
        return self.state.load(identity(self.tree.stamps()))

    def _make(self, have: Bitfield) -> None:
        """Make or mend the files and the state file; zero pieces are here from now on."""
        zeros = [index for index in range(self.geometry.count) if self.metadata.is_zero(index)]
        self._check_space(zeros)
        # Bits for what the part was until now must be gone before it becomes something else.
        if self.state.metadata is None:
            self.state.begin(self.metadata)
        else:
            self.state.clear()
        self.tree.make(allocate=not zeros)
        for index in zeros:
            if self.leftover and not have.has(index):
                self.tree.write(self.geometry.offset_of(index), bytes(self.geometry.size_of(index)))
            have.set(index)

    def _check_space(self, zeros: list[int]) -> None:
        needed = self.geometry.length - sum(self.geometry.size_of(index) for index in zeros)
        needed -= self.tree.allocated() if self.leftover else 0
        free = self.place.disk.free_bytes(self.tree.root)
        if needed > free:
            raise DiskFull(
                f"{self.place.directory} is {needed - free} bytes short: {self.metadata.name} "
                f"needs {needed} and {free} are free"
            )

    async def _store(self, have: Bitfield, *, verified: Bitfield) -> Store:
        return Store(
            place=self.place,
            metadata=self.metadata,
            hash_key=self.state.hash_key,
            have=have,
            tree=self.tree,
            stamps=await self.run(self.tree.stamps),
            state=self.state,
            sha256=self.descriptor.sha256,
            verified=verified,
        )

    async def copy_from_target(self, store: Store, reusable: Bitfield) -> None:
        """Write the pieces of the existing target that match into the part."""
        wanted = [index for index in reusable if not store.have.has(index)]
        if not wanted:
            return
        place, geometry = self.place, self.geometry
        target = await self.run(partial(place.target_tree, self.metadata.name, self.metadata.files))
        try:
            for index in wanted:
                read = partial(target.read, geometry.offset_of(index), geometry.size_of(index))
                try:
                    data = await run(place.workers, target.path, read)
                    await store.write_piece(index, data)
                except HashMismatch:
                    continue  # changed since it was hashed: fetched instead
        finally:
            await place.workers.run(target.close)

    def abandon(self) -> None:
        """After a failure: leave nothing behind that was not there before; release the rest."""
        if not self.leftover:
            with suppress(OSError):
                remove_tree(self.place.disk, self.tree.root, self.tree.top)
                self.state.remove()
        self.tree.close()
        self.state.close()
