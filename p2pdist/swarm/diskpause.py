"""What a disk refuses for now: the reason, and when it is tried again.

Job: keep the reason for people and the one retry, ``limits.DISK_RETRY_S`` later, however often the
disk refuses meanwhile. Does NOT decide which errors pass. Tests: ``test_transfer``.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from p2pdist import limits
from p2pdist.errors import DiskFull, StorageError


@define(eq=False)
class DiskPause:
    """The pause of one transfer.

    Args:
        clock: time.
        paused: told the reason when a pause begins.
        resumed: told when it is over.

    Attributes:
        reason: for people; empty while nothing is refused.
        full: whether space is what lacks.
    """

    _clock: IReactorTime
    _paused: Callable[[str], None]
    _resumed: Callable[[], None]
    reason: str = field(init=False, default="")
    full: bool = field(init=False, default=False)
    _retry: tuple[float, Callable[[], None]] | None = field(init=False, default=None)

    @property
    def waiting(self) -> bool:
        """Whether something is going to be tried again."""
        return self._retry is not None

    def begin(self, error: StorageError, again: Callable[[], None]) -> None:
        """The disk refused; call ``again`` later."""
        self._retry = (self._clock.seconds() + limits.DISK_RETRY_S, again)
        known, self.full = self.reason, isinstance(error, DiskFull)
        self.reason = f"{'disk space' if self.full else 'the disk'}: {error}"
        if not known:
            self._paused(str(error))

    def over(self) -> None:
        """The disk takes data."""
        if self.reason:
            self.reason, self.full, self._retry = "", False, None
            self._resumed()

    def tick(self, now: float) -> None:
        """Try again if it is time to."""
        if self._retry is not None and self._retry[0] <= now:
            again, self._retry = self._retry[1], None
            again()
