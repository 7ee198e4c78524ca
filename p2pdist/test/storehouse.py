"""Small contents on a simulated disk, and the calls tests of storage make.

Job: fixtures only. Tests: used by ``test_store`` and its kin.
"""

from __future__ import annotations

import random
from typing import Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from p2pdist import limits
from p2pdist.content import FileEntry, Metadata, hash_piece
from p2pdist.descriptor import Descriptor
from p2pdist.ids import HashKey
from p2pdist.storage.disk import IDisk
from p2pdist.storage.layout import part_name, state_name
from p2pdist.storage.locate import create, locate
from p2pdist.storage.pieces import Geometry
from p2pdist.storage.place import Place
from p2pdist.storage.store import Store
from p2pdist.test.fakes import ImmediateWorkers
from p2pdist.test.simdisk import SimDisk
from p2pdist.workers import IWorkers

PIECE = limits.PIECE_LENGTH_MIN
DATA = "/data"
STATE = "/state"


@define
class Content:
    """A content that is made up.

    Attributes:
        metadata: of it.
        data: all its bytes.
    """

    metadata: Metadata
    data: bytes = field(repr=False)

    @property
    def hash_key(self) -> HashKey:
        """Return its name."""
        return self.metadata.hash_key()

    @property
    def count(self) -> int:
        """Return the number of pieces."""
        return self.metadata.count

    def piece(self, index: int) -> bytes:
        """Return a piece's bytes."""
        return self.data[index * PIECE : (index + 1) * PIECE]

    def files(self) -> dict[str, bytes]:
        """Return the bytes of each file by path."""
        found, start = {}, 0
        for entry in self.metadata.files:
            found[entry.joined] = self.data[start : start + entry.length]
            start += entry.length
        return found

    def descriptor(self, **changes: Any) -> Descriptor:
        """Return a descriptor as ``make`` writes it."""
        full = Descriptor(
            hash_key=self.hash_key,
            nodes=(),
            name=self.metadata.name,
            length=self.metadata.length,
            piece_length=None if self.metadata.is_folder else PIECE,
            sha256=None,
            source="test.desc",
        )
        return evolve(full, **changes)


def content(files: dict[str, int], *, zeros: tuple[int, ...] = (), seed: int = 1) -> Content:
    """Make up a content.

    Args:
        files: length by path; a path ending in ``*`` is executable.
        zeros: pieces without any other byte.
        seed: of its bytes.
    """
    length = sum(files.values())
    data = bytearray(random.Random(seed).randbytes(length))
    for index in zeros:
        size = len(data[index * PIECE : (index + 1) * PIECE])
        data[index * PIECE : index * PIECE + size] = bytes(size)
    entries = [
        FileEntry(tuple(path.rstrip("*").split("/")), size, path.endswith("*"))
        for path, size in files.items()
    ]
    entries.sort(key=lambda entry: entry.joined)
    geometry = Geometry(length, PIECE)
    hashes = b"".join(
        hash_piece(bytes(data[index * PIECE : (index + 1) * PIECE]))
        for index in range(geometry.count)
    )
    return Content(Metadata(PIECE, tuple(entries), hashes), bytes(data))


def one_file(*, zeros: tuple[int, ...] = ()) -> Content:
    """Make up a file of four pieces, the last one short."""
    return content({"file.bin": 3 * PIECE + 1000}, zeros=zeros)


def folder() -> Content:
    """Make up a folder whose pieces and files begin and end anywhere; one file is empty."""
    return content(
        {
            "tree/a": 1000,
            "tree/b/empty": 0,
            "tree/b/long": 2 * PIECE,
            "tree/b/run*": 10,
            "tree/c": PIECE,
        }
    )


@define
class Storehouse:
    """A content, a disk and a clock.

    Attributes:
        content: what is stored.
        disk: where.
        clock: for the group sync.
        workers: immediate unless told.
        progress: what progress was told.
        stores: every store opened here.
    """

    content: Content
    disk: SimDisk = field(factory=SimDisk)
    workers: IWorkers = field(factory=ImmediateWorkers)
    clock: Clock = field(factory=Clock)
    progress: list[tuple[int, int]] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.disk.put_folder(DATA)
        self.disk.put_folder(STATE)

    def place(self, **changes: Any) -> Place:
        """Return where things go."""
        return place_on(self.disk, self.workers, self.clock, **changes)

    def create(self, **changes: Any) -> Deferred[Store]:
        """Begin the download."""
        place = self.place(**{k: v for k, v in changes.items() if k in PLACE_FIELDS})
        said = {k: v for k, v in changes.items() if k not in PLACE_FIELDS}
        return create(
            place,
            self.content.hash_key,
            self.content.metadata,
            self.content.descriptor(**said),
            self.tell,
        )

    def locate(self, **changes: Any) -> Deferred[Store | None]:
        """Look for what is there."""
        place = self.place(**{k: v for k, v in changes.items() if k in PLACE_FIELDS})
        said = {k: v for k, v in changes.items() if k not in PLACE_FIELDS}
        return locate(place, self.content.descriptor(**said), self.tell)

    def tell(self, done: int, total: int) -> None:
        """Record progress."""
        self.progress.append((done, total))

    def restart(self) -> None:
        """Forget the old process's timers."""
        self.clock = Clock()
        self.progress.clear()

    @property
    def part(self) -> str:
        """Return the part's path."""
        return f"{DATA}/{part_name(self.content.metadata.name, self.content.hash_key)}"

    @property
    def state(self) -> str:
        """Return the state file's path."""
        return f"{DATA}/{state_name(self.content.metadata.name, self.content.hash_key)}"

    @property
    def record(self) -> str:
        """Return the record's path."""
        return f"{STATE}/complete/{self.content.hash_key.hex()}"

    def put_target(self, **changed: bytes) -> None:
        """Put the complete content where it belongs, some files with other bytes."""
        for entry in self.content.metadata.files:
            data = changed.get(entry.joined.replace("/", "_"), self.content.files()[entry.joined])
            mode = 0o755 if entry.executable else 0o644
            self.disk.put(f"{DATA}/{entry.joined}", data, mode=mode)


PLACE_FIELDS = {"directory", "state_directory", "path", "replace"}


def place_on(disk: IDisk, workers: IWorkers, clock: Clock, **changes: Any) -> Place:
    """Return a place on any disk."""
    place = Place(disk=disk, workers=workers, clock=clock, directory=DATA, state_directory=STATE)
    return evolve(place, **changes)
