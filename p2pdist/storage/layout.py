"""Where the bytes of a content lie in its files: laid end to end, sorted by path.

Job: map a range of the content to ranges of files, and name our own files beside the target
(decision 21). Pure; opens nothing. Tests: ``test_layout``.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from attrs import define, field

from p2pdist import limits
from p2pdist.ids import HashKey, short

PART_SUFFIX = ".p2pdist-part"
STATE_SUFFIX = ".p2pdist-state"


class Segment(NamedTuple):
    """A piece's share of one file.

    Attributes:
        file: index of the file.
        offset: bytes from the start of that file.
        size: bytes, 1 or more.
    """

    file: int
    offset: int
    size: int


def _beginnings(lengths: Iterable[int]) -> array[int]:
    beginnings = array("Q", [0])
    for length in lengths:
        beginnings.append(beginnings[-1] + length)
    return beginnings


@define
class Layout:
    """The files of a content end to end.

    Args:
        lengths: bytes of each file, in order.
    """

    _starts: array[int] = field(converter=_beginnings, alias="lengths")

    @property
    def count(self) -> int:
        """Number of files."""
        return len(self._starts) - 1

    @property
    def length(self) -> int:
        """Bytes in all."""
        return self._starts[-1]

    def start_of(self, file: int) -> int:
        """Return where the file begins in the content."""
        return self._starts[file]

    def length_of(self, file: int) -> int:
        """Return the file's bytes."""
        return self._starts[file + 1] - self._starts[file]

    def segments(self, offset: int, size: int) -> Iterator[Segment]:
        """Yield the shares of files that ``size`` bytes from ``offset`` consist of, in order.

        Files without bytes never appear. The range must lie inside the content.
        """
        assert 0 <= offset <= offset + size <= self.length
        file = bisect_right(self._starts, offset) - 1
        while size > 0:
            inside = offset - self._starts[file]
            share = min(size, self.length_of(file) - inside)
            if share > 0:
                yield Segment(file, inside, share)
            offset += share
            size -= share
            file += 1


def part_name(name: str, hash_key: HashKey) -> str:
    """Return the name of the file or folder a download of ``name`` grows in."""
    return _own_name(name, hash_key) + PART_SUFFIX


def state_name(name: str, hash_key: HashKey) -> str:
    """Return the name of the state file beside the part."""
    return _own_name(name, hash_key) + STATE_SUFFIX


def _own_name(name: str, hash_key: HashKey) -> str:
    # Cut on bytes, for the file system counts bytes; a character cut in two is dropped whole.
    head = name.encode()[: limits.PART_NAME_BYTES].decode(errors="ignore")
    return f".{head}.{short(hash_key)}"
