"""Bytes of a content lent where they lie: in open files, warmed so that sending them seldom waits.

Job: keep handles open until the last user has released them. Does NOT check bytes. Threat: a file
that changes while it is lent; what is sent then is what it became, and the receiver's hash decides.
Tests: ``test_tree``, ``test_line``.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field, frozen


@frozen
class Part:
    """A run of bytes in one open file.

    Attributes:
        handle: of the file.
        offset: in the file.
        size: bytes, at least 1.
    """

    handle: int
    offset: int
    size: int


@define(eq=False)
class Loan:
    """A run of bytes of a content, in one or more open files.

    Made with one user; every :class:`Stretch` is another.

    Args:
        parts: where they are, in order.
        returned: called once, when nobody uses them any more.
    """

    parts: tuple[Part, ...]
    returned: Callable[[], None] = field(repr=False)
    _users: int = field(init=False, default=1)

    def __len__(self) -> int:
        return sum(part.size for part in self.parts)

    def cut(self, start: int, size: int) -> list[Stretch]:
        """Return the stretches that hold ``size`` bytes from ``start``."""
        stretches = []
        for part in self.parts:
            begin, end = max(start, 0), min(start + size, part.size)
            if begin < end:
                self._users += 1
                stretches.append(Stretch(self, part.handle, part.offset + begin, end - begin))
            start -= part.size
        return stretches

    def release(self) -> None:
        """One user less."""
        assert self._users, "released too often"
        self._users -= 1
        if not self._users:
            self.returned()


@define(eq=False)
class Stretch:
    """Bytes that are being sent, in one file.

    Attributes:
        handle: of the file.
        offset: of the next byte.
        size: bytes left.
    """

    _loan: Loan = field(repr=False)
    handle: int
    offset: int
    size: int

    def after(self, sent: int) -> Stretch | None:
        """Go on behind ``sent`` bytes; ``None``, and released, when none is left."""
        self.offset += sent
        self.size -= sent
        if self.size:
            return self
        self.release()
        return None

    def release(self) -> None:
        """Give it back."""
        self._loan.release()
