"""What writing pieces costs: time spent on hashing, and on the disk. Pure. Tests: ``test_effort``.

Job: tell which of the two is the slow one, for whoever asks what limits a download. Does NOT
measure (``piecefiles`` does, in the worker that does the work).
"""

from __future__ import annotations

from typing import Final

from attrs import define, frozen

MEMORY: Final = 0.9
"""What earlier pieces weigh when one more is added: ten of them, about."""


@frozen
class Spent:
    """What one piece cost.

    Attributes:
        hashing_s: seconds.
        writing_s: seconds.
    """

    hashing_s: float
    writing_s: float


@define
class Effort:
    """What pieces cost lately.

    Attributes:
        hashing_s: seconds, older pieces counting less.
        writing_s: likewise.
    """

    hashing_s: float = 0.0
    writing_s: float = 0.0

    def add(self, spent: Spent) -> None:
        """Learn of one more piece."""
        self.hashing_s = MEMORY * self.hashing_s + spent.hashing_s
        self.writing_s = MEMORY * self.writing_s + spent.writing_s

    @property
    def mostly_hashing(self) -> bool:
        """Whether more time goes into checking pieces than into writing them."""
        return self.hashing_s > self.writing_s
