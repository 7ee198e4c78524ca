"""How much room is left where downloads go, looked at now and then. Tests: ``test_freespace``.

Job: ask the disk in a worker, one question at a time, and keep the answer. It does NOT keep anybody
from writing (``part`` looks for itself) nor a timer (``upkeep`` ticks it).
"""

from __future__ import annotations

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from p2pdist import limits
from p2pdist.storage.disk import IDisk
from p2pdist.workers import IWorkers


@define(eq=False)
class FreeSpace:
    """The free space of one folder's file system.

    Args:
        disk: that is asked.
        workers: where.
        clock: for the pace.
        directory: the folder.

    Attributes:
        bytes: an ordinary user may still write, when it was looked at last; ``None`` before, and
            where the folder cannot be opened.
    """

    disk: IDisk
    workers: IWorkers
    clock: IReactorTime
    directory: str
    bytes: int | None = field(init=False, default=None)
    _asking: Deferred[int] | None = field(init=False, default=None)
    _looked_at: float | None = field(init=False, default=None)

    def look(self) -> None:
        """Ask again, unless that is under way or was done within ``limits.FREE_SPACE_EVERY_S``."""
        now = self.clock.seconds()
        if self._asking is not None:
            return
        if self._looked_at is not None and now - self._looked_at < limits.FREE_SPACE_EVERY_S:
            return
        self._looked_at = now
        self._asking = self.workers.run(self._ask)
        self._asking.addBoth(self._told)

    def _ask(self) -> int:
        """Block."""
        handle = self.disk.open_root(self.directory)
        try:
            return self.disk.free_bytes(handle)
        finally:
            self.disk.close(handle)

    def _told(self, answer: int | Failure) -> None:
        self._asking = None
        if isinstance(answer, Failure):
            answer.trap(OSError)
            self.bytes = None
        else:
            self.bytes = answer

    def idle(self) -> Deferred[None]:
        """Fire when no question is under way."""
        if self._asking is None:
            return succeed(None)
        waited: Deferred[None] = Deferred()

        def over(result: object) -> object:
            waited.callback(None)
            return result

        self._asking.addBoth(over)
        return waited
