"""Descriptor files that change while the node runs: a watched folder, and reloads.

Job: look into the folder every ``limits.WATCH_EVERY_S``, in a worker; take what is new, replace
what changed, drop what is gone; on :meth:`Watching.reload` read every file again, those of
``--descriptor`` too. It does NOT remove content from the disk, nor know signals (``faces``).

A file is taken when it looked the same at two looks: one that is still being written might lack
its last line, and that line might be the secret. Whatever cannot be used is logged once for each
reason, and what was served before goes on. Polled, not inotify: that is silent on network file
systems, and here a look costs one worker a few system calls.

Threat: whoever may write to the folder decides what is fetched, as whoever starts the process; but
there may be anything in it: at most ``limits.WATCH_FILES`` regular files called ``*.desc``.
Tests: ``test_watching``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable
from functools import partial
from typing import Final

from attrs import define, evolve, field, frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredLock
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.contents import TransferService
from p2pdist.descriptor import Descriptor, DescriptorParser
from p2pdist.errors import NodeStopped, P2PDistError, UntrustedDescriptor
from p2pdist.ids import HashKey
from p2pdist.logs import new_logger
from p2pdist.signatures import SUFFIX as SIGNATURE
from p2pdist.swarm.throttle import RateLimits
from p2pdist.workers import IWorkers

SUFFIX: Final = ".desc"
Stamp = tuple[int, ...]
"""Inode, size and time of change of a file and of its signature; equal if neither was touched."""


@frozen
class Sight:
    """What one look at the folder found.

    Attributes:
        stamps: of the files, by path.
        ignored: files beyond ``limits.WATCH_FILES``.
        trouble: why the folder cannot be looked into, or ``""``.
    """

    stamps: dict[str, Stamp]
    ignored: int = 0
    trouble: str = ""


def look_into(folder: str) -> Sight:
    """Look. Blocks; links are followed, as Kubernetes mounts its files."""
    try:
        names = sorted(os.listdir(folder))  # noqa: PTH208 -- text
    except OSError as error:
        return Sight({}, trouble=f"{folder}: {error.strerror}")
    names = [name for name in names if name.endswith(SUFFIX) and not name.startswith(".")]
    stamps = {}
    for name in names:
        path = os.path.join(folder, name)  # noqa: PTH118 -- text
        stamp = stamp_of(path)
        if stamp is not None:
            stamps[path] = stamp
            if len(stamps) == limits.WATCH_FILES:
                break
    return Sight(stamps, len(names) - len(stamps) if len(stamps) == limits.WATCH_FILES else 0)


def stamp_of(path: str) -> Stamp | None:
    """Return the stamp of a regular file, ``None`` if there is none. Blocks."""
    found: list[int] = []
    for one in (path, path + SIGNATURE):
        try:
            facts = os.stat(one)  # noqa: PTH116 -- text
        except (OSError, ValueError):
            if one == path:
                return None
            continue
        if one == path and not stat.S_ISREG(facts.st_mode):
            return None
        found += (facts.st_ino, facts.st_size, facts.st_mtime_ns)
    return tuple(found)


@define
class _File:
    """A file that is followed.

    Attributes:
        descriptor: what it says, as far as that is served; ``None`` for what cannot be used.
        read: its stamp when it was read last.
        seen: its stamp at the last look.
        trouble: why it cannot be used now, or ``""``.
    """

    descriptor: Descriptor | None = None
    read: Stamp = ()
    seen: Stamp = ()
    trouble: str = ""


@define(eq=False)
class Watching(Service):
    """Follows descriptor files; start it with the node's service.

    Args:
        contents: what is told.
        parser: reads the files.
        workers: where.
        clock: for the pace.
        folder: that is watched, if any.
        rates_of: returns what options say a content may move.

    Attributes:
        files: that are followed, by path.
    """

    contents: TransferService
    parser: DescriptorParser
    workers: IWorkers
    clock: IReactorTime
    folder: str | None = None
    rates_of: Callable[[Descriptor], RateLimits | None] = lambda _descriptor: None
    files: dict[str, _File] = field(init=False, factory=dict)
    _named: list[str] = field(init=False, factory=list)
    _turn: DeferredLock = field(init=False, factory=DeferredLock)
    _loop: LoopingCall | None = field(init=False, default=None)
    _trouble: str = field(init=False, default="")
    _looked: bool = field(init=False, default=False)
    _log = new_logger()

    def took(self, path: str, descriptor: Descriptor) -> None:
        """Note a file named by an option, which is served already; it is read at a reload."""
        self._named.append(path)
        self.files[path] = _File(descriptor)

    def name(self, paths: Iterable[str]) -> None:
        """Follow these named files from the next reload on, and no other."""
        self._named = list(dict.fromkeys(paths))
        for path in self._named:
            self.files.setdefault(path, _File())

    def names(self, key: HashKey) -> bool:
        """Tell whether a file that is followed names a content."""
        return any(
            file.descriptor is not None and file.descriptor.hash_key == key
            for file in self.files.values()
        )

    def startService(self) -> None:
        """Take what is in the folder now, and look again from then on."""
        super().startService()
        if self.folder is not None:
            self._loop = LoopingCall(self._look)
            self._loop.clock = self.clock
            self._loop.start(limits.WATCH_EVERY_S)

    def stopService(self) -> None:
        """Look no more."""
        super().stopService()
        if self._loop is not None and self._loop.running:
            self._loop.stop()
        self._loop = None

    def _look(self) -> Deferred[None]:
        """Look at the folder; the loop waits for the end."""
        return self.reload(everything=False)

    def reload(self, *, everything: bool = True) -> Deferred[None]:
        """Look now. Fires when what was found is taken; never fails.

        Args:
            everything: read all files again, whether they seem changed or not, and say how it went.
        """
        work = self._turn.run(lambda: Deferred.fromCoroutine(self._follow(everything)))

        def bug(failure: Failure) -> None:
            if not failure.check(NodeStopped):
                self._log.failure("a bug in following descriptor files", failure)

        return work.addErrback(bug)

    async def _follow(self, everything: bool) -> None:
        first, self._looked = not self._looked, True
        sight = Sight({})
        if self.folder is not None:
            sight = await self.workers.run(partial(look_into, self.folder))
            self._tell_sight(sight)
        if not sight.trouble:
            gone = self.files.keys() - sight.stamps.keys() - set(self._named)
            for path in sorted(gone):
                await self._drop(path, "is gone")
        due = [
            path
            for path, stamp in sight.stamps.items()
            if self._is_due(path, stamp, now=everything or first)
        ]
        due += [path for path in self._named if everything and path not in sight.stamps]
        read = await self.workers.run(partial(self._read, due))
        for path, found in read.items():
            if self.running:
                await self._take(path, found, everything=everything)
        if everything:
            bad = sum(bool(file.trouble) for file in self.files.values())
            self._log.info(
                "descriptors are read again: {good} good, {bad} not",
                good=len(self.files) - bad,
                bad=bad,
            )

    def _is_due(self, path: str, stamp: Stamp, *, now: bool) -> bool:
        """Tell whether a file should be read: it changed, and rests since the last look.

        One that could not be used is read again: what it lacked may stand in another file.
        """
        file = self.files.setdefault(path, _File())
        rests, file.seen = stamp == file.seen, stamp
        if now or (rests and (stamp != file.read or file.trouble)):
            file.read = stamp
            return True
        return False

    def _read(self, paths: Iterable[str]) -> dict[str, Descriptor | P2PDistError]:
        """Read files. Blocks."""

        def read(path: str) -> Descriptor | P2PDistError:
            try:
                return self.parser.parse_file(path)
            except P2PDistError as error:
                return error

        return {path: read(path) for path in paths}

    async def _take(self, path: str, found: Descriptor | P2PDistError, *, everything: bool) -> None:
        file = self.files[path]
        if everything and isinstance(found, UntrustedDescriptor):
            # Not while a signature may just be on its way: then an operator has asked for it.
            await self._drop(path, "is not signed any more by anybody who is asked for")
            self.files[path] = file
            file.descriptor = None
        try:
            if isinstance(found, P2PDistError):
                raise found
            await self._serve(file, found)
        except P2PDistError as error:
            if str(error) != file.trouble:
                kept = " What it said before goes on." if file.descriptor is not None else ""
                self._log.error("{reason}.{kept}", reason=str(error), kept=kept, path=path)
            file.trouble = str(error)
        else:
            file.trouble = ""

    async def _serve(self, file: _File, new: Descriptor) -> None:
        """Serve ``new`` in place of what the file said before; if that fails, the old goes on."""
        old = file.descriptor
        if old is not None and old.hash_key != new.hash_key and not self._others(file, old):
            self._log.info("{path} names another content now", path=new.source)
            await self.contents.remove(old.hash_key)
        elif old is not None and set(old.secrets) != set(new.secrets):
            await self._move(file, old, new)
        try:
            self._add(new)
        except P2PDistError:
            if old is not None and old.hash_key != new.hash_key:
                self._add(old)
            raise
        file.descriptor = new

    async def _move(self, file: _File, old: Descriptor, new: Descriptor) -> None:
        """Leave the networks of the old secrets; what is on the disk stays."""
        paused = self.contents.paused.get(new.hash_key)
        if paused is not None:
            self.contents.paused[new.hash_key] = evolve(paused, descriptor=new)
        elif not self._others(file, old):
            self._log.info("{path} has other secrets now", path=new.source)
            await self.contents.remove(old.hash_key)

    def _add(self, descriptor: Descriptor) -> None:
        if descriptor.hash_key in self.contents.paused:
            return  # the operator's word counts: it is taken up with p2pdist resume
        known = descriptor.hash_key in self.contents.sessions
        self.contents.add(descriptor, rates=self.rates_of(descriptor) or RateLimits())
        if not known:
            self._log.info("{path}: added", path=descriptor.source)

    async def _drop(self, path: str, why: str) -> None:
        file = self.files.pop(path)
        old = file.descriptor
        if old is not None and not self._others(file, old):
            self._log.info("{path} {why}: its content is served no more", path=path, why=why)
            await self.contents.remove(old.hash_key)

    def _others(self, file: _File, descriptor: Descriptor) -> bool:
        """Tell whether another file names the same content."""
        key: HashKey = descriptor.hash_key
        return any(
            other.descriptor is not None and other.descriptor.hash_key == key
            for other in self.files.values()
            if other is not file
        )

    def _tell_sight(self, sight: Sight) -> None:
        """Log what is wrong with the folder, once."""
        trouble = sight.trouble
        if sight.ignored:
            trouble = (
                f"{self.folder}: {sight.ignored} files beyond {limits.WATCH_FILES} are ignored"
            )
        if trouble and trouble != self._trouble:
            self._log.error("{reason}; what is served goes on", reason=trouble)
        self._trouble = trouble
