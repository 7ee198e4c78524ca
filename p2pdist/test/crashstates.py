"""Every disk that a crash may leave: traces of a content's life, cut and shuffled.

A scenario runs on :class:`~p2pdist.test.simdisk.SimDisk` up to each of its operations. There the
power goes off, and of the changes that no sync made durable (pages of files, new lengths, names)
any set may have reached the device, in any order, a page of it torn. With few changes all sets are
tried; with many: each prefix, each suffix, each change alone, all but each, each torn, all sets of
whole writes, and some by chance. Disks that are alike are looked at once.

On each the next process starts: it must come up without an error, have no piece whose bytes are not
there, and every piece a sync had made durable; and every few it has to finish.

Job: enumerate and examine; used by ``test_crash_states`` (a few hundred) and
``tools/crash_states.py`` (all). Source: ALICE (OSDI 2014). Tests: ``test_crash_states``.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import random
from collections.abc import Callable, Iterator

from attrs import define, field, frozen
from twisted.logger import globalLogBeginner

from p2pdist.test.simdisk import Change, PowerLost, SimDisk
from p2pdist.test.storehouse import DATA, PIECE, Content, Storehouse, folder, one_file
from p2pdist.test.test_crash import STEPS_MAX, Life

ALL_SETS_OF = 7
"""So many changes, or whole writes, are tried in all their sets."""
BY_CHANCE = 24
"""Sets drawn by chance, where there are more."""
FINISH_EVERY = 16
"""Of the distinct disks, so many are downloaded to the end."""


def _nothing(_house: Storehouse) -> None:
    """A disk that nothing was on before."""


@frozen
class Scenario:
    """What a node does until the power goes off.

    Attributes:
        made: the content.
        prepare: what was on the disk before.
        replace: an existing target may be replaced.
        mends: the disk had lost bytes of the published content, which are looked for.
    """

    made: Content
    prepare: Callable[[Storehouse], None] = _nothing
    replace: bool = False
    mends: bool = False


def _half_done(house: Storehouse) -> None:
    life = Life(house)
    life.begin()
    assert life.store is not None
    for index in (0, 1):
        life.answer(life.store.write_piece(index, house.content.piece(index)))
    life.answer(life.store.close())
    house.restart()


def _killed(house: Storehouse) -> None:
    """Kill a process whose last pieces were not recorded; they are in the cache only."""
    life = Life(house)
    life.begin()
    assert life.store is not None
    life.answer(life.store.write_piece(0, house.content.piece(0)))
    life.answer(life.store.sync())
    for index in (1, 2):
        life.answer(life.store.write_piece(index, house.content.piece(index)))
    house.disk.kill()
    house.restart()


def _other_file(house: Storehouse) -> None:
    house.disk.put(f"{DATA}/file.bin", house.content.data[: 2 * PIECE] + b"other")


def _other_folder(house: Storehouse) -> None:
    house.disk.put(f"{DATA}/tree/mine", b"mine")
    house.disk.put(f"{DATA}/tree/a", house.content.data[:1000])


def _rotten(house: Storehouse) -> None:
    life = Life(house)
    life.begin()
    life.go_on()
    house.disk.flip(f"{DATA}/{next(iter(house.content.files()))}", PIECE // 2)
    house.restart()


SCENARIOS: dict[str, Scenario] = {
    "download": Scenario(one_file()),
    "sparse": Scenario(one_file(zeros=(1,))),
    "folder": Scenario(folder()),
    "resume": Scenario(one_file(), _half_done),
    "resume unrecorded": Scenario(one_file(), _killed),
    "resume folder": Scenario(folder(), _half_done),
    "replace": Scenario(one_file(), _other_file, replace=True),
    "replace folder": Scenario(folder(), _other_folder, replace=True),
    "mend": Scenario(one_file(), _rotten, mends=True),
}


class BadState(AssertionError):
    """A disk that the next process does not get right."""


def sets_of(changes: list[Change], rng: random.Random) -> Iterator[tuple[float, ...]]:
    """Yield which share of each change survives, for every set that is tried."""
    count = len(changes)
    yield (0.0,) * count
    yield (1.0,) * count
    if count <= ALL_SETS_OF:
        yield from itertools.product((0.0, 1.0), repeat=count)
    for at in range(count):
        before, after = at, count - at - 1
        yield (1.0,) * before + (0.0,) * (after + 1)
        yield (0.0,) * before + (1.0,) * (after + 1)
        yield (0.0,) * before + (1.0,) + (0.0,) * after
        yield (1.0,) * before + (0.0,) + (1.0,) * after
        torn = rng.random()
        yield (1.0,) * before + (torn,) + (0.0,) * after
        yield (1.0,) * before + (torn,) + (1.0,) * after
    writes = _whole_writes(changes)
    if len(writes) <= ALL_SETS_OF < count:
        for kept in itertools.product((0.0, 1.0), repeat=len(writes)):
            yield tuple(
                share for share, size in zip(kept, writes, strict=True) for _ in range(size)
            )
    for _ in range(BY_CHANCE if count > ALL_SETS_OF else 0):
        yield tuple(rng.choice((0.0, 1.0, rng.random())) for _ in range(count))


def _whole_writes(changes: list[Change]) -> list[int]:
    """Return the numbers of neighbouring changes that one write or one rename made."""
    sizes: list[int] = []
    before: Change | None = None
    for change in changes:
        if before is not None and change.follows(before):
            sizes[-1] += 1
        else:
            sizes.append(1)
        before = change
    return sizes


@define
class Examination:
    """Crash states of one scenario, each examined once.

    Attributes:
        scenario: which.
        rng: where chance decides.
        trace: which order of pieces and syncs; 0 is the plain one.
        tried: sets of survivors that were tried.
        distinct: how many different disks they left.
        finished: how many of these were downloaded to the end.
        seen: fingerprints of those disks.
    """

    scenario: Scenario
    rng: random.Random
    trace: int = 0
    tried: int = 0
    finished: int = 0
    seen: set[bytes] = field(factory=set)

    @property
    def distinct(self) -> int:
        """Number of different disks so far."""
        return len(self.seen)

    def run(self, *, every: int = 1, begin_at: int = 0) -> Iterator[int]:
        """Examine; yields the operation the power went off before.

        Args:
            every: take only so many of the sets, for a sample.
            begin_at: the first operation.

        Raises:
            BadState: with operation and set.
        """
        for step in range(begin_at, STEPS_MAX):
            life, ended = self._until(step)
            sets = list(dict.fromkeys(sets_of(life.house.disk.unsynced_changes(), self.rng)))
            for number, kept in enumerate(sets):
                if (step + number) % every == 0:
                    self._examine(life, step, kept)
            yield step
            if ended:
                return
        raise AssertionError("the scenario does not end")

    def _until(self, step: int) -> tuple[Life, bool]:
        house = Storehouse(self.scenario.made)
        self.scenario.prepare(house)
        house.disk.calls.clear()
        rng = random.Random(self.trace) if self.trace else None
        life = Life(house, replace=self.scenario.replace, rng=rng)
        house.disk.crash_before = step
        try:
            self._live(life)
        except PowerLost:
            return life, False
        return life, True

    def _live(self, life: Life) -> None:
        life.begin()
        if self.scenario.mends:
            self._look(life)
        life.go_on()

    @staticmethod
    def _look(life: Life) -> None:
        """Read everything from the device, and get ready to mend what is wrong."""
        store = life.store
        assert store is not None
        for index in range(store.geometry.count):
            life.answer(store.check(index))
        if store.published and not store.complete:
            life.answer(store.mend())

    def _examine(self, before: Life, step: int, kept: tuple[float, ...]) -> None:
        self.tried += 1
        disk = copy.deepcopy(before.house.disk)
        shares = iter(kept)
        disk.crash(lambda: next(shares, 0.0))
        found = _fingerprint(disk, before.durable)
        if found in self.seen:
            return
        self.seen.add(found)
        house = Storehouse(self.scenario.made, disk=disk)
        life = Life(house, replace=self.scenario.replace)
        where = f"power off before operation {step} ({before.house.disk.calls[-1:]}), kept {kept}"
        life.begin()
        if self.scenario.mends:
            self._look(life)
        if life.trouble or life.store is None:
            raise BadState(f"does not start: {life.trouble}; {where}")
        held = life.held()
        for index in life.store.have:
            if held[index * PIECE : (index + 1) * PIECE] != self.scenario.made.piece(index):
                raise BadState(f"piece {index} has a bit and no data; {where}")
        lost = before.durable - set(life.store.have)
        if lost and not self.scenario.mends:
            raise BadState(f"pieces {sorted(lost)} were durable and are gone; {where}")
        if self.distinct % FINISH_EVERY == 0:
            self._finish(life, where)

    def _finish(self, life: Life, where: str) -> None:
        self.finished += 1
        house = life.house
        for _ in range(2):
            life.go_on()
            life.next_process()
            life.begin()
            if self.scenario.mends:
                self._look(life)
        assert life.store is not None
        if life.trouble or not life.store.published or not life.store.complete:
            raise BadState(f"does not finish: {life.trouble}; {where}")
        for path, data in self.scenario.made.files().items():
            if house.disk.get(f"{DATA}/{path}") != data:
                raise BadState(f"{path} is wrong in the end; {where}")
        left = [path for path in house.disk.paths(DATA) if _is_ours(path)]
        if left:
            raise BadState(f"{left} is left beside it; {where}")


def _is_ours(path: str) -> bool:
    """Tell whether a path is one of our own unfinished files."""
    return ".p2pdist-" in path


def quiet() -> None:
    """Drop the log of a long run: syncs that meet the end of the world say so in it."""
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False, discardBuffer=True)


def _fingerprint(disk: SimDisk, durable: set[int]) -> bytes:
    digest = hashlib.sha256(repr(sorted(durable)).encode())
    for path in disk.paths():
        digest.update(path.encode() + b"\0" + disk.mode(path).to_bytes(2, "big"))
        digest.update(hashlib.sha256(disk.get(path)).digest())
    return digest.digest()
