"""What is already on disk of a content, and the way from there to a store.

:func:`locate` needs the descriptor only; :func:`create` comes when the metadata is known and there
is something to fetch; :func:`verify` only looks. What is found is, in this order:

1. a record of the complete content whose files look as they did: trusted;
2. a state file whose bits belong to what stands under the final name: a crash interrupted
   publishing, or mending (``mending``), which is finished;
3. a target: hashed; it is the content, or it is in the way (ContentConflict, unless it may be
   replaced: then its matching pieces are reused);
4. part and state file: resumed.

Threat: see ``disk``; nothing found is trusted for its name. Tests: ``test_locate``,
``test_create``, ``test_verify``.
"""

from __future__ import annotations

from functools import partial

from twisted.internet.defer import Deferred

from p2pdist.content import Metadata
from p2pdist.descriptor import Descriptor
from p2pdist.errors import AlreadyRunning, ContentConflict, StorageError
from p2pdist.ids import HashKey
from p2pdist.source import Progress
from p2pdist.storage.disk import FileFacts, Kind
from p2pdist.storage.layout import state_name
from p2pdist.storage.mending import Mending
from p2pdist.storage.part import discard, find_state, open_part
from p2pdist.storage.pieces import Bitfield
from p2pdist.storage.place import Place
from p2pdist.storage.records import Record, load_record
from p2pdist.storage.statefile import StateFile
from p2pdist.storage.store import Store
from p2pdist.storage.survey import Survey, identify, run, survey, target_facts
from p2pdist.storage.tree import FileTree, identity


def locate(place: Place, descriptor: Descriptor, progress: Progress) -> Deferred[Store | None]:
    """Open what is already on disk of the descriptor's content, without asking anybody.

    Args:
        place: where.
        descriptor: what.
        progress: called in the reactor thread with bytes hashed and bytes in all, if hashing is
            needed.

    Returns:
        Fires with a store: complete and published, or a download to go on with; with ``None``
        when there is nothing, or nothing that can be judged before the metadata is known (then
        :func:`create` judges it).
        Fails with ContentConflict (something else is in the target's place), AlreadyRunning
        (another process downloads it), StorageError (not readable, no file, a link).
    """
    return Deferred.fromCoroutine(_locate(place, descriptor, progress))


def create(
    place: Place,
    hash_key: HashKey,
    metadata: Metadata,
    descriptor: Descriptor,
    progress: Progress,
) -> Deferred[Store]:
    """Begin to fetch a content, or find that it is here already.

    Uses what :func:`locate` could not judge: an existing target is hashed, a part without a
    usable state file too; with ``place.replace`` the target's matching pieces are copied.

    Returns:
        Fires with the store: zero pieces and reused ones are in ``have``; it is published if
        nothing is missing. Fails with DiskFull
        (says how many bytes are short, and where), ContentConflict, AlreadyRunning, StorageError,
        or DescriptorError when the descriptor's name, length or piece length are not the
        content's.
    """
    return Deferred.fromCoroutine(_create(place, hash_key, metadata, descriptor, progress))


async def _locate(place: Place, descriptor: Descriptor, progress: Progress) -> Store | None:
    record = await _load_record(place, descriptor.hash_key)
    metadata = None
    if record is not None:
        metadata = record.metadata
        descriptor.check_metadata(metadata)
        store = await _from_record(place, record)
        if store is not None:
            return store
    if place.path is None:
        finding = partial(find_state, place, descriptor)
        state = await run(place.workers, place.directory, finding)
        if state is not None:
            return await _from_state(place, descriptor, state, progress)
    found = await _examine(place, descriptor, metadata, progress)
    if found is None or not found.complete:
        return None
    return await _adopt(place, found, descriptor.sha256)


async def _create(
    place: Place,
    hash_key: HashKey,
    metadata: Metadata,
    descriptor: Descriptor,
    progress: Progress,
) -> Store:
    descriptor.check_metadata(metadata)
    found = await _examine(place, descriptor, metadata, progress)
    if found is not None and found.complete:
        return await _adopt(place, found, descriptor.sha256)
    opening = partial(
        StateFile.open,
        place.disk,
        place.directory,
        state_name(metadata.name, hash_key),
        hash_key,
        create=True,
    )
    state = await run(place.workers, place.directory, opening)
    assert state is not None
    return await _open_part(place, state, metadata, descriptor, progress, found)


# --- the target ---


async def _examine(
    place: Place, descriptor: Descriptor, metadata: Metadata | None, progress: Progress
) -> Survey | None:
    """Hash what stands under the final name; ``None`` if nothing does or it cannot be judged yet.

    Raises:
        ContentConflict: it is something else and may not be replaced.
        StorageError: as :func:`survey`, or it is of the wrong kind.
    """
    name = descriptor.name if metadata is None else metadata.name
    if name is None and place.path is None:
        return None
    path = place.target_path(name or "")
    facts = await target_facts(place, name or "")
    if facts is not None and facts.kind not in {Kind.FILE, Kind.DIRECTORY}:
        raise StorageError(f"{path} is {facts.kind.value}, which is not touched")
    if facts is None:
        if place.path is not None:
            raise StorageError(f"{path} does not exist")
        return None
    if metadata is None:
        found = await identify(place, descriptor, progress)
        if found is not None or not _is_decided(place, descriptor, facts):
            return found
    else:
        expected = Kind.DIRECTORY if metadata.is_folder else Kind.FILE
        if facts.kind is not expected:
            raise StorageError(f"{path} is {facts.kind.value}, but the content is {expected.value}")
        found = await survey(place, metadata, progress, all_or_nothing=not place.replace)
    if place.path is not None and (found is None or not found.complete):
        raise ContentConflict(f"{path} is not what the descriptor's hash_key names")
    if not place.replace and (found is None or not found.complete):
        raise ContentConflict(
            f"{path} exists with other content than the descriptor's; "
            "move it away, or allow it to be replaced (--replace)"
        )
    return found


def _is_decided(place: Place, descriptor: Descriptor, facts: FileFacts) -> bool:
    """Tell whether a target that is not what it seemed cannot be the content at all."""
    if descriptor.name is None:
        return False  # the name is part of what is hashed
    if facts.kind is Kind.FILE:
        return descriptor.piece_length is not None or (
            descriptor.length is not None and descriptor.length != facts.size
        )
    # Between folders, files beside the content's own and executable flags make a difference that
    # does not count; but what the operator pointed at should be the content and nothing else.
    return place.path is not None and descriptor.piece_length is not None


async def _adopt(place: Place, found: Survey, sha256: str | None) -> Store:
    """Make a store of a target that was just found complete, and keep a record of it.

    Raises:
        StorageError: it is what hash_key names, but not what the descriptor's sha256 says.
    """
    assert found.stamps is not None
    metadata = found.metadata
    store = await _open_complete(place, metadata, found.stamps, found.have.copy(), sha256)
    try:
        await store.check_sha256()
    except StorageError:
        await store.close()
        raise
    await store.keep_record()
    if place.path is None:
        await discard(place, metadata.name, store.hash_key)
    return store


async def _open_complete(
    place: Place,
    metadata: Metadata,
    stamps: bytes,
    verified: Bitfield,
    sha256: str | None = None,
    have: Bitfield | None = None,
) -> Store:
    def opening() -> FileTree:
        tree = place.target_tree(metadata.name, metadata.files)
        tree.rest()  # perhaps nobody ever asks for it
        return tree

    return Store(
        place=place,
        metadata=metadata,
        hash_key=metadata.hash_key(),
        have=have or Bitfield.full(metadata.count),
        tree=await run(place.workers, place.target_path(metadata.name), opening),
        stamps=stamps,
        state=None,
        sha256=sha256,
        verified=verified,
    )


# --- records and state files ---


async def _load_record(place: Place, hash_key: HashKey) -> Record | None:
    if place.state_directory is None:
        return None
    return await place.workers.run(
        partial(load_record, place.disk, place.state_directory, hash_key)
    )


async def known_metadata(place: Place, descriptor: Descriptor) -> Metadata | None:
    """Return the metadata that record or state file hold, without trusting anything else of them.

    Raises:
        StorageError: the folder cannot be read.
    """
    record = await _load_record(place, descriptor.hash_key)
    if record is not None:
        return record.metadata
    if place.path is not None:
        return None
    finding = partial(find_state, place, descriptor)
    try:
        state = await run(place.workers, place.directory, finding)
    except AlreadyRunning:
        return None
    if state is None:
        return None
    await place.workers.run(state.close)
    return state.metadata


async def _from_record(place: Place, record: Record) -> Store | None:
    """Trust a record whose files look as they did."""
    metadata = record.metadata
    if (record.directory, record.top) != place.target(metadata.name):
        return None
    try:
        stamps = await place.workers.run(partial(_target_stamps, place, metadata))
    except OSError:
        return None  # whatever it is, it is looked at more closely
    if stamps != record.stamps:
        return None
    store = await _open_complete(place, metadata, stamps, Bitfield(metadata.count))
    if place.path is None:
        await discard(place, metadata.name, store.hash_key)
    return store


def _target_stamps(place: Place, metadata: Metadata) -> bytes:
    tree = place.target_tree(metadata.name, metadata.files)
    try:
        return tree.stamps()
    finally:
        tree.close()


async def _from_state(
    place: Place, descriptor: Descriptor, state: StateFile, progress: Progress
) -> Store:
    """Go on where another run of p2pdist ended; takes ``state`` over."""
    metadata = state.metadata
    assert metadata is not None
    try:
        descriptor.check_metadata(metadata)
        store = await _interrupted(place, state, metadata, progress)
        if store is not None:
            return store
        found = await _examine(place, descriptor, metadata, progress)
    except BaseException:
        await place.workers.run(state.close)
        raise
    if found is not None and found.complete:
        await place.workers.run(state.close)
        return await _adopt(place, found, descriptor.sha256)
    return await _open_part(place, state, metadata, descriptor, progress, found)


async def _open_part(
    place: Place,
    state: StateFile,
    metadata: Metadata,
    descriptor: Descriptor,
    progress: Progress,
    found: Survey | None,
) -> Store:
    """Open the part; if nothing is missing in it, publish it at once."""
    reusable = None if found is None else found.have
    store = await open_part(place, state, metadata, descriptor, progress, reusable)
    if store.complete:
        await _publish_or_close(store)
    return store


async def _interrupted(
    place: Place, state: StateFile, metadata: Metadata, progress: Progress
) -> Store | None:
    """Finish publishing or mending if the state's bits are those of the files in the final place.

    Raises:
        StorageError: it cannot be finished now.
    """

    def load() -> Bitfield | None:
        try:
            return state.load(identity(_target_stamps(place, metadata)))
        except OSError:
            return None

    have = await place.workers.run(load)
    if have is None:
        return None
    if not have.complete:
        return await _interrupted_mending(place, state, metadata, have, progress)
    tree = await run(place.workers, place.directory, partial(_writable, place, metadata))
    store = Store(
        place=place,
        metadata=metadata,
        hash_key=state.hash_key,
        have=have,
        tree=tree,
        stamps=await run(place.workers, tree.path, tree.stamps),
        state=state,
        sha256=None,  # checked before the first step of publishing
        verified=Bitfield(metadata.count),
    )
    await _publish_or_close(store)
    return store


async def _interrupted_mending(
    place: Place, state: StateFile, metadata: Metadata, had: Bitfield, progress: Progress
) -> Store | None:
    """Go on with it, unless more is wrong now than was missing: then somebody changed it.

    Raises:
        StorageError: it cannot be read or written to.
    """
    found = await survey(place, metadata, progress)
    if found.stamps is None or found.complete or any(not found.have.has(i) for i in had):
        return None
    tree = await run(place.workers, place.directory, partial(_writable, place, metadata))
    verified = found.have.copy()
    store = await _open_complete(place, metadata, found.stamps, verified, have=found.have)
    store.mend_with(Mending(state, tree))
    store.mark_unsynced(index for index in found.have if not had.has(index))
    return store


def _writable(place: Place, metadata: Metadata) -> FileTree:
    return FileTree(place.disk, place.directory, metadata.name, metadata.files, writable=True)


async def _publish_or_close(store: Store) -> None:
    try:
        await store.publish()
    except BaseException:
        await store.close()
        raise
